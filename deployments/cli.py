"""The `suture` command: thin, every verb a flow, a task or a local service."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from deployments.printing import Format, FormatOption
from deployments.react_cli import react_app
from tasks.errors import BadInput, SutureError

if TYPE_CHECKING:
    from prefect.client.schemas.objects import State


class Commands(TyperGroup):
    """Typer's group of commands; an error is one clear line and exit code 2, never a traceback."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except SutureError as error:
            words = str(error)
        except _library_errors() as error:
            words = _in_words(error)
        typer.echo(f"suture: {words}", err=True)
        raise typer.Exit(2)


class Evidence(Commands):
    """`suture evidence ID` is short for `suture evidence make ID`."""

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        known = args[0] in self.commands
        return super().resolve_command(ctx, args if known else ["make", *args])


app = typer.Typer(
    name="suture",
    cls=Commands,
    help="Find cloud misconfigurations in AWS accounts and Azure subscriptions, and close them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
gate = typer.Typer(help="Open and close the gate of an account, with your own credentials.")
db = typer.Typer(help="The warehouse's database.")
policy = typer.Typer(help="The policies that say how findings are closed.")
audit = typer.Typer(help="The audit log: who did what to what.")
snapshot = typer.Typer(help="Resources as they were read before, during and after a fix.")
evidence = typer.Typer(cls=Evidence, help="What proves one fix, to be checked without a database.")
issuer = typer.Typer(help="Suture as an OpenID issuer, which clouds and customers trust.")
for part, its_name in (
    (gate, "gate"),
    (db, "db"),
    (policy, "policy"),
    (audit, "audit"),
    (snapshot, "snapshot"),
    (evidence, "evidence"),
    (issuer, "issuer"),
):
    app.add_typer(part, name=its_name, no_args_is_help=True)
app.add_typer(react_app, name="react")


WIDE = 400  # columns of a table that nobody looks at
SHORT_ID = 12
STAGES = "before, during, after or undone; of several at one stage, the last."
TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M", "%Y-%m-%dT%H:%M:%S"]


class CloudName(StrEnum):
    AWS = "aws"
    AZURE = "azure"


class SeverityName(StrEnum):
    CRITICAL = "critical"
    HIGH = "high"
    MEDIUM = "medium"
    LOW = "low"


CloudOption = Annotated[CloudName | None, typer.Option(help="Only this cloud.")]
SeverityOption = Annotated[SeverityName | None, typer.Option(help="Only this severity.")]


def main() -> None:
    """Run the command."""
    # What is imported stays. Looking through it for garbage at every seven hundredth new object,
    # as Python does unless told otherwise, takes a tenth of the time until a command begins.
    gc.set_threshold(10_000)
    app()


def _library_errors() -> tuple[type[Exception], ...]:
    """What the libraries that are in use raise when a server, a file or an address is at fault."""
    found: list[type[Exception]] = [OSError]
    for module, name in (("psycopg", "Error"), ("httpx", "HTTPError")):
        if module in sys.modules:
            found.append(getattr(sys.modules[module], name))
    return tuple(found)


def _in_words(error: Exception) -> str:
    """One line for a library's error. Their own texts may be long, and hold what was sent."""
    kind = type(error).__name__
    if kind in ("UndefinedTable", "UndefinedColumn", "UndefinedFunction"):
        return "the warehouse's tables are missing or old. Run `suture db upgrade`."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {error.strerror}."
    lines = str(error).strip().splitlines()
    return f"{kind}: {lines[0]}" if lines else kind


def show(
    rows: Sequence[Mapping[str, Any]],
    columns: Iterable[str],
    form: Format,
    *,
    whole: str = "",
) -> None:
    """Print rows as a table of some columns, ``whole`` never broken, or all of them as JSON."""
    if form is Format.JSON:
        typer.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
        return
    columns = list(columns)
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold", no_wrap=column == whole)
    for row in rows:
        table.add_row(*(escape(_cell(row.get(column))) for column in columns))
    # Into a pipe each row is a line; a terminal has its own width.
    Console(width=None if sys.stdout.isatty() else WIDE, highlight=False).print(table)


def show_one(values: Mapping[str, Any], form: Format) -> None:
    """Print one thing: a line for each value, or JSON."""
    if form is Format.JSON:
        typer.echo(json.dumps(dict(values), indent=2, default=str))
        return
    for name, value in values.items():
        typer.echo(f"{name.replace('_', ' ')}: {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None or value == "" or value == []:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_cell(one)}" for name, one in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(_cell(item) for item in value)
    return str(value)


# --- services ----------------------------------------------------------------------------------


@app.command()
def demo(
    aws: Annotated[
        int, typer.Option(min=1, max=2000, help="AWS accounts, one of them managing.")
    ] = 20,
    azure: Annotated[int, typer.Option(min=1, max=2000, help="Azure subscriptions.")] = 10,
    seed: Annotated[int, typer.Option(help="Plants the same resources each time.")] = 7,
    once: Annotated[bool, typer.Option("--once", help="End when all is shown.")] = False,
    approve: Annotated[
        bool, typer.Option("--approve", help="Answer the approvals too, as an approver would.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON summary.")] = False,
) -> None:
    """Run the main job on this machine: an emulated fleet, its scan, and its remediation."""
    from deployments.local.demo import run_demo

    raise typer.Exit(
        run_demo(aws=aws, azure=azure, seed=seed, once=once, approve=approve, as_json=as_json)
    )


@app.command()
def local(
    aws: Annotated[
        int, typer.Option(min=1, max=2000, help="AWS accounts, one of them managing.")
    ] = 20,
    azure: Annotated[int, typer.Option(min=1, max=2000, help="Azure subscriptions.")] = 10,
    seed: Annotated[int, typer.Option(help="Plants the same resources each time.")] = 7,
    data: Annotated[
        Path | None, typer.Option(help="Where to write the CA, keys, inventory and truth.")
    ] = None,
    propagation_seconds: Annotated[
        float,
        typer.Option(min=0, max=600, help="How long the clouds take to know of an opened gate."),
    ] = 0.0,
    latency: Annotated[
        float, typer.Option(min=0, max=10, help="Seconds added to every call of both clouds.")
    ] = 0.0,
    event_delay: Annotated[
        float,
        typer.Option(min=0, max=600, help="Seconds until an event tells of a change."),
    ] = 0.0,
    event_duplicates: Annotated[
        float, typer.Option(min=0, max=1, help="The share of events that come twice.")
    ] = 0.0,
    event_reordering: Annotated[
        float, typer.Option(min=0, max=1, help="The share of events that others overtake.")
    ] = 0.0,
    warm_gates: Annotated[
        bool, typer.Option(help="The customer keeps all gates open ahead, for automatic fixes.")
    ] = False,
    plain_http: Annotated[
        int,
        typer.Option(min=0, max=200, help="Storage accounts with plain HTTP to add to each."),
    ] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Run just the emulated clouds until interrupted, and say how to reach them."""
    from deployments.local.fleet import run_fleet

    run_fleet(
        aws=aws,
        azure=azure,
        seed=seed,
        data=data,
        as_json=as_json,
        propagation_seconds=propagation_seconds,
        latency=latency,
        event_delay=event_delay,
        event_duplicates=event_duplicates,
        event_reordering=event_reordering,
        warm_gates=warm_gates,
        plain_http=plain_http,
    )


@app.command()
def server(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 4200,
) -> None:
    """Run Prefect's API and UI behind the approval guard."""
    from deployments.server import run_server

    run_server(host, port)


@app.command()
def serve(
    limit: Annotated[int, typer.Option(min=1, help="Flow runs at the same time.")] = 4,
) -> None:
    """Serve the deployments of prefect.yaml from this process, without a work pool."""
    from deployments.serve import serve_deployments

    serve_deployments(limit)


@app.command()
def halt(
    reason: Annotated[str, typer.Option(help="Why; without it, say how it stands.")] = "",
    lift: Annotated[bool, typer.Option("--lift", help="End it instead, with a reason.")] = False,
    policy_name: Annotated[str, typer.Option("--policy", help="Only this policy.")] = "",
    everything: Annotated[
        bool, typer.Option("--all", help="Approved runs too, not only automatic ones.")
    ] = False,
    by: Annotated[str, typer.Option(help="Who says so; else the user of this machine.")] = "",
    status: Annotated[bool, typer.Option("--status", help="Only say how it stands.")] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Stop all automatic remediation at once, everywhere, until it is lifted.

    A run that is writing takes back what it has begun. Runs that a person approved go on, unless
    --all. What is held back waits: triage takes it up after the lift.
    """
    from deployments.halt import change, standing_halts

    if status or not (reason or lift or policy_name or everything):
        rows = standing_halts()
        if form is Format.TABLE and not rows:
            typer.echo("Nothing is halted.")
            return
    else:
        rows = change(reason, by, lift=lift, policy=policy_name, everything=everything)
    show(rows, ("what", "reason", "halted_by", "halted_at", "lifted_by", "lifted_at"), form)


# --- looking -----------------------------------------------------------------------------------


@app.command()
def rules(
    cloud: CloudOption = None,
    service: Annotated[str, typer.Option(help="Only this service, such as ec2.")] = "",
    severity: SeverityOption = None,
    aka: Annotated[
        str, typer.Option(help="Only what others call so, or a control: cis-aws-6.0:6.3.")
    ] = "",
    fix: Annotated[
        bool | None, typer.Option("--fix/--guided", help="Only with a fix, or guided only.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List the rule table: what is looked for, and what can be fixed.

    As JSON also what each rule reads and writes, which events touch it, its other names, and
    whether the emulated cloud proves it in full.
    """
    from tasks.rules import RULES

    rows = [
        {
            "id": rule.id,
            "cloud": rule.cloud.value,
            "service": rule.service,
            "kind": rule.kind,
            "severity": rule.severity.value,
            "title": rule.title,
            "fix": rule.fix is not None,
            "undo": rule.fix is not None,
            "inputs": [value.name for value in rule.inputs],
            "reads": list(rule.reads),
            "writes": list(rule.writes),
            "events": list(rule.events),
            "aka": list(rule.aka),
            "controls": list(rule.controls),
            "proved": rule.proved,
        }
        for rule in RULES
        if cloud in (None, rule.cloud.value)
        and service in ("", rule.service)
        and severity in (None, rule.severity.value)
        and (not aka or any(aka in name for name in rule.aka))
        and fix in (None, rule.fix is not None)
    ]
    show(rows, ("id", "severity", "fix", "title", "inputs"), form, whole="id")


@app.command()
def kinds(
    cloud: CloudOption = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List the kinds of resources, and the calls that a scan of each costs.

    For the rules that SUTURE_RULES puts in force, or all. As JSON with the names of the calls.
    """
    from tasks import settings
    from tasks.clouds.costs import costs
    from tasks.rules import rules_of

    found = [one for one in costs(rules_of(settings.rules())) if cloud in (None, one.cloud.value)]
    if form is Format.TABLE:
        rows = [
            {
                "kind": one.kind,
                "rules": one.rules,
                "calls": f"{len(one.once)} per {one.place}",
                "for each resource": len(one.each) or "–",
                "for each part": len(one.deeper) or "–",
            }
            for one in found
        ]
        show(rows, tuple(rows[0]) if rows else ("kind",), form, whole="kind")
        return
    show([asdict(one) for one in found], (), form)


@app.command()
def controls(
    cloud: CloudOption = None,
    answered: Annotated[
        bool | None, typer.Option("--answered/--unanswered", help="Only those with rules, or not.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List the automated CIS controls: which rules answer each, or why none can."""
    from tasks.rules import RULES
    from tasks.rules.benchmark import controls as known

    rows = [
        {"control": one.id, "rules": list(one.rules), "reason": one.reason}
        for one in known(RULES)
        if (cloud is None or one.id.startswith(f"cis-{cloud}-"))
        and answered in (None, bool(one.rules))
    ]
    show(rows, ("control", "rules", "reason"), form, whole="control")


@app.command()
def guide(
    rule_id: Annotated[str, typer.Argument(metavar="RULE")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Print a rule's guide: what it means, how to fix it by hand, how to go back."""
    from tasks.rules import rule

    found = rule(rule_id)
    text = found.guide
    if form is Format.JSON:
        show_one({"rule": found.id, "title": found.title, "guide": text}, form)
    elif sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        typer.echo(text)


@app.command()
def findings(
    severity: SeverityOption = None,
    cloud: CloudOption = None,
    account: Annotated[str, typer.Option(help="Only this account or subscription.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    parquet: Annotated[
        Path | None, typer.Option(help="Write all of them to this Parquet file instead.")
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List findings from the warehouse, or export them.

    The table shows the beginning of each id, which is enough to name a finding.
    """
    from tasks.warehouse import accessor

    if parquet is not None:
        if severity or cloud or account:
            raise BadInput("--parquet", "exports all findings.", "Filter where you read the file.")
        typer.echo(f"{accessor.export_parquet(parquet)} findings written to {parquet}")
        return
    found = accessor.findings(
        open=None if everything else True,
        severity=severity and severity.value,
        cloud=cloud and cloud.value,
        account=account or None,
    )
    rows = json.loads(found.to_json(orient="records", date_format="iso"))
    if form is Format.TABLE:
        for row in rows:
            row["id"] = row["id"][:SHORT_ID]
    show(rows, ("id", "severity", "account", "rule", "resource", "status"), form, whole="id")


@app.command()
def scan(
    account: Annotated[
        list[str] | None, typer.Option("--account", help="Only this account; may be repeated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=1000, help="Accounts a task scans.")] = 100,
    since: Annotated[
        datetime | None,
        typer.Option(help="Only accounts not read since then (UTC).", formats=TIMES),
    ] = None,
    touched: Annotated[
        bool, typer.Option("--touched", help="Only accounts that an event told of since.")
    ] = False,
    full: Annotated[
        bool, typer.Option("--full", help="Judge and record what has not changed, too.")
    ] = False,
    resume: Annotated[
        bool, typer.Option(help="Go on where a scan of the same accounts was cut off.")
    ] = True,
    triage: Annotated[bool, typer.Option(help="Hand open findings to their policies.")] = True,
    form: FormatOption = Format.TABLE,
) -> None:
    """Scan the fleet of the inventory now, in this process, and show the posture."""
    from deployments.prefect_server import need_server, quiet_console

    quiet_console()
    from flows.scan import scan_fleet
    from tasks import settings
    from tasks.inventory import load_inventory
    from tasks.report import posture_summary
    from tasks.warehouse.database import connect
    from tasks.warehouse.scans import latest_scan, posture

    load_inventory(settings.inventory_path())
    connect().close()
    need_server()
    state = scan_fleet(
        accounts=account or [],
        batch_size=batch_size,
        hand_to_triage=triage,
        since=since and since.replace(tzinfo=UTC),
        touched=touched,
        full=full,
        resume=resume,
        return_state=True,
    )
    _completed("the scan", state)
    with connect() as warehouse:
        summary = posture_summary(posture(warehouse, latest_scan(warehouse)))
    show_one({"state": state.name, **summary}, form)


@app.command()
def triage(form: FormatOption = Format.TABLE) -> None:
    """Hand the open findings to their policies now: close, ask an approver, or leave to people."""
    from deployments.prefect_server import need_server, quiet_console

    quiet_console()
    from flows.triage import triage as triage_flow
    from tasks import settings
    from tasks.inventory import load_inventory
    from tasks.policy import load_policies
    from tasks.warehouse.database import connect

    load_inventory(settings.inventory_path())
    load_policies(settings.policies_path())
    connect().close()
    need_server()
    state = triage_flow(return_state=True)
    _completed("triage", state)
    show_one({"state": state.name, "result": state.message}, form)


def _completed(what: str, state: State[Any]) -> None:
    if not state.is_completed():
        lines = (state.message or "no reason was given").strip().splitlines()
        raise SutureError(f"{what} ended as {state.name}: {lines[0]}")


@app.command()
def plan(
    finding: Annotated[str, typer.Argument(metavar="FINDING", help="A finding's id.")],
    value: Annotated[
        list[str] | None,
        typer.Option("--value", help="An input, such as allowed_cidrs=10.0.0.0/8."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what fixing a finding would change. Reads the resource afresh; changes nothing."""
    from tasks.plan import plan_json
    from tasks.planning import plan_finding

    planned = plan_finding(finding, _values(value or []))
    if form is Format.JSON:
        typer.echo(json.dumps({**plan_json(planned), "hash": planned.hash}, indent=2))
        return
    typer.echo(f"{planned.title}\n{planned.resource.id}")
    changes = [
        {"field": change.field, "before": change.before, "after": change.after}
        for change in planned.changes
    ]
    show(changes, ("field", "before", "after"), form)
    typer.echo(f"needs: {', '.join(planned.permissions) or 'nothing'}")


@app.command()
def remediate(
    finding: Annotated[list[str], typer.Argument(metavar="FINDING...", help="Finding ids.")],
    policy: Annotated[str, typer.Option(help="Close them under this policy.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Start a remediation run for findings of one account; it waits for an approver.

    Under an automatic policy it does not wait: the customer's token endpoint is asked.
    """
    import getpass

    from deployments.prefect_server import need_server
    from tasks import settings
    from tasks.planning import find_findings
    from tasks.policy import load_policies, named
    from tasks.triage import start_remediation
    from tasks.warehouse.database import connect

    with connect() as warehouse:
        found = find_findings(warehouse, finding)
    if policy:
        named(load_policies(settings.policies_path()), policy)
    need_server()
    ids = [one.id for one in found]
    show_one(start_remediation(ids, policy=policy, requested_by=getpass.getuser()), form)


@app.command()
def restore(
    remediation: Annotated[
        str, typer.Argument(metavar="REMEDIATION", help="A remediation's id, from the warehouse.")
    ],
    form: FormatOption = Format.TABLE,
) -> None:
    """Start a run that puts a resource back as it was before a remediation, after an approval.

    The resource must be as the remediation left it; what is different is shown. Restoring a restore
    applies the fix again.
    """
    import getpass

    from deployments.prefect_server import need_server, start_restore
    from tasks.warehouse.database import connect
    from tasks.warehouse.remediations import load_remediation

    with connect() as warehouse:
        found = load_remediation(warehouse, remediation.strip())
    need_server()
    _show_drift(str(found.id), form)
    show_one(start_restore(str(found.id), requested_by=getpass.getuser()), form)


def _show_drift(remediation: str, form: Format) -> None:
    """Look before a restore is started whether it can be, and show what stands in its way.

    Where the cloud cannot be read from here, the run will look. Raises ChangedSince.
    """
    from tasks.drift import ChangedSince
    from tasks.errors import BadInventory, CloudError
    from tasks.planning import plan_restore

    try:
        plan_restore(remediation)
    except ChangedSince as changed:
        rows = [{"field": c.field, "as left": c.before, "now": c.after} for c in changed.drift]
        show(rows, ("field", "as left", "now"), form)
        raise
    except (CloudError, BadInventory) as problem:
        typer.echo(f"Not looked at from here, the run will: {problem}", err=True)


@policy.command("test")
def policy_test(
    finding: Annotated[str, typer.Argument(metavar="FINDING", help="A finding's id.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Say which policy a finding meets, and why."""
    from tasks import settings
    from tasks.policy import decide, load_policies
    from tasks.warehouse.database import connect
    from tasks.warehouse.findings import finding_by_id

    policies = load_policies(settings.policies_path())
    with connect() as warehouse:
        decision = decide(finding_by_id(warehouse, finding), policies)
    met = decision.policy
    show_one({"policy": met.name, "mode": met.mode.value, "why": decision.why}, form)


# --- the customer's side -----------------------------------------------------------------------

MinutesOption = Annotated[int, typer.Option(min=1, max=15, help="How long it stays open.")]
RunOption = Annotated[
    list[str] | None, typer.Option("--run", help="On Azure, for this run's resources; repeatable.")
]
ResourceOption = Annotated[
    list[str] | None, typer.Option("--resource", help="On Azure, for this resource id; repeatable.")
]
SourceOption = Annotated[
    str, typer.Option(help="The inventory entry it belongs to, where there are several.")
]


@gate.command("open")
def gate_open(
    account: Annotated[str, typer.Argument(help="An account number or subscription id.")],
    minutes: MinutesOption = 10,
    run: RunOption = None,
    resource: ResourceOption = None,
    source: SourceOption = "",
    seed_file: Annotated[
        Path | None,
        typer.Option(envvar="SUTURE_GATE_SEED_FILE", help="The file that holds the TOTP seed."),
    ] = None,
    opener: Annotated[
        bool,
        typer.Option(
            "--opener", help="Ask for your authenticator's code, and have your opener open it."
        ),
    ] = False,
    form: FormatOption = Format.TABLE,
) -> None:
    """Open an account's gate with your own credentials, and print the code an approver types.

    AWS opens for the whole account, where each fix narrows itself to its resource, and closes by
    itself. Azure opens for single resources, and has no such date: there this command stays until
    the time is over or Ctrl-C, and closes it. With --opener it needs neither credentials nor a
    seed: the opener checks the code, opens, and closes.
    """
    from deployments.gate import open_by_hand, open_by_opener

    if opener:
        from pydantic import SecretStr

        code = SecretStr(typer.prompt("Code", hide_input=True, err=True))
        told = open_by_opener(
            account,
            minutes=minutes,
            runs=run or [],
            resources=resource or [],
            source=source,
            code=code,
        )
        show_one(told, form)
        return
    open_by_hand(
        account,
        minutes=minutes,
        runs=run or [],
        resources=resource or [],
        source=source,
        seed_file=seed_file,
        say=lambda values: show_one(values, form) if form is Format.TABLE else _line(values),
    )


@gate.command("close")
def gate_close(
    account: Annotated[str, typer.Argument(help="An account number or subscription id.")],
    source: SourceOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Close an account's gate now, whoever it was opened for."""
    from deployments.gate import close_by_hand

    told = close_by_hand(account, source=source)
    words = f"The gate of {account} is closed."
    if "warm" in told["closed"]:
        words += (
            " Your opener was keeping it warm, and opens it again within minutes:"
            " take it out of the opener's configuration."
        )
    _done(told, words, form)


@gate.command("status")
def gate_status(
    account: Annotated[str, typer.Argument(help="An account number or subscription id.")],
    source: SourceOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Say whether an account's gate is open: for a person, a machine or warm, until when, for what.

    "warm" is an opening that your opener keeps ahead for the policies that you let it.
    """
    from deployments.gate import status_by_hand

    show_one(status_by_hand(account, source=source), form)


@gate.command("sweep")
def gate_sweep(
    source: Annotated[str, typer.Option(help="Only this entry of the inventory.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Close every gate on Azure that stands past its time. For a schedule of yours.

    With your own credentials. Openings there do not close by themselves; AWS's do. Exit code 1: a
    subscription could not be looked at.
    """
    from deployments.gate_sweep import sweep

    rows = sweep(source)
    show(rows, ("source", "subscription", "closed", "problem"), form)
    raise typer.Exit(1 if any(row["problem"] for row in rows) else 0)


@gate.command("enroll")
def gate_enroll(
    seed_file: Annotated[
        Path, typer.Option(envvar="SUTURE_GATE_SEED_FILE", help="Where to keep the new TOTP seed.")
    ],
    name: Annotated[str, typer.Option(help="How an authenticator app calls it.")] = "gate",
    form: FormatOption = Format.TABLE,
) -> None:
    """Make a new TOTP seed, keep it in a file of yours, and show it to an authenticator app.

    As the otpauth address and its QR code. Whoever sees either can make your codes.
    """
    from deployments.gate import enroll, qr_code

    address = enroll(seed_file, name)
    words = f"{address}\n\n{qr_code(address)}"
    _done({"seed_file": str(seed_file), "otpauth": address}, words, form)


@gate.command("template")
def gate_template(
    cloud: Annotated[CloudName, typer.Option(help="For which cloud.")],
    output: Annotated[
        Path | None, typer.Option(help="The file to write, instead of the screen.")
    ] = None,
    rule: Annotated[
        list[str] | None,
        typer.Option(help="Only what these rules need, such as aws_s3_*. May be repeated."),
    ] = None,
) -> None:
    """Print what a customer deploys: a CloudFormation template (AWS) or an ARM template (Azure).

    Its permissions are those of the rule table. deployments/aws and deployments/azure hold the same
    text, and say how to deploy it. With --rule the roles are narrower: scan with SUTURE_RULES set
    to the same rules then, because what others read is refused.
    """
    from deployments.templates import template_text
    from tasks.model import Cloud
    from tasks.rules import rules_of

    text = template_text(Cloud(cloud.value), rules_of(rule or (), "--rule"))
    if output is None:
        typer.echo(text, nl=False)
    else:
        output.write_text(text, encoding="utf-8")


def _done(values: Mapping[str, Any], words: str, form: Format) -> None:
    """Print the outcome of a command: in words, or as JSON."""
    if form is Format.JSON:
        show_one(values, form)
    else:
        typer.echo(words)


def _line(values: Mapping[str, Any]) -> None:
    """One JSON line at once: a program waits for it while the gate stays open."""
    typer.echo(json.dumps(dict(values), default=str))
    sys.stdout.flush()


@db.command()
def upgrade(form: FormatOption = Format.TABLE) -> None:
    """Bring the warehouse's tables and views to this version."""
    from tasks.warehouse.database import upgrade as upgrade_database
    from tasks.warehouse.database import warehouse_url

    upgrade_database(warehouse_url())
    _done({"up_to_date": True}, "The warehouse is up to date.", form)


@audit.command()
def verify(
    expected: Annotated[
        str,
        typer.Option(
            metavar="NUMBER:HASH",
            help="A head that was printed before and kept elsewhere: proves that nothing before "
            "it was rewritten or cut off.",
        ),
    ] = "",
    head_file: Annotated[
        Path | None,
        typer.Option("--head", help="The same, from the file that `suture audit head` wrote."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check the audit log's hash chain from its first entry to its head. Exit code 1: broken."""
    from tasks.warehouse.audit import head, verify_chain
    from tasks.warehouse.database import connect

    kept = _head(expected, head_file)
    with connect() as warehouse:
        broken = verify_chain(warehouse, kept)
        last = head(warehouse)
    show_one(
        {
            "holds": broken is None,
            "entries": last[0] if last else 0,
            "head": f"{last[0]}:{last[1]}" if last else "",
            **({"broken_at": broken.number, "why": broken.reason} if broken else {}),
        },
        form,
    )
    raise typer.Exit(1 if broken else 0)


def _head(expected: str, file: Path | None) -> tuple[int, str] | None:
    """A head that was kept elsewhere, as typed or from a file; None where there is none."""
    from tasks.evidence import parse_head

    if file is not None:
        return parse_head("--head", file.read_text(encoding="utf-8"))
    return parse_head("--expected", expected) if expected else None


@audit.command("head")
def audit_head() -> None:
    """Print the chain's head, NUMBER:HASH, to be kept where this database's owner cannot reach."""
    from tasks.audit import GENESIS
    from tasks.warehouse.audit import head
    from tasks.warehouse.database import connect

    with connect() as warehouse:
        number, kept = head(warehouse) or (0, GENESIS)
    typer.echo(f"{number}:{kept}")


@audit.command("show")
def audit_show(
    remediation: Annotated[str, typer.Argument(metavar="REMEDIATION", help="A remediation's id.")],
    form: FormatOption = Format.TABLE,
) -> None:
    """Tell what became of one remediation, step by step: who, when, which calls, how it ended."""
    from tasks.story import tell
    from tasks.warehouse.audit import entries_about
    from tasks.warehouse.database import connect
    from tasks.warehouse.remediations import load_remediation

    with connect() as warehouse:
        found = load_remediation(warehouse, remediation.strip())
        story = tell(entries_about(warehouse, [found.id, found.run_id]))
    if form is Format.JSON:
        typer.echo(json.dumps([one.json for one in story], indent=2))
        return
    console = Console(width=None if sys.stdout.isatty() else WIDE, highlight=False)
    for one in story:
        console.print(f"[bold]{one.at:%Y-%m-%d %H:%M:%S}[/bold] {escape(one.sentence)}")
        for line in one.lines:
            console.print(f"    [dim]{escape(line)}[/dim]")


@snapshot.command("diff")
def snapshot_diff(
    remediation: Annotated[str, typer.Argument(metavar="REMEDIATION", help="A remediation's id.")],
    old: Annotated[str, typer.Option("--from", metavar="STAGE", help=STAGES)] = "before",
    new: Annotated[str, typer.Option("--to", metavar="STAGE", help=STAGES)] = "after",
    form: FormatOption = Format.TABLE,
) -> None:
    """Show what differs between two snapshots of one remediation, field by field."""
    from tasks.snapshot import content_diff
    from tasks.warehouse.database import connect
    from tasks.warehouse.remediations import load_remediation, snapshots

    with connect() as warehouse:
        found = load_remediation(warehouse, remediation.strip())
        taken = {one.stage: one.content for one in snapshots(warehouse, found.id)}
    for option, stage in (("--from", old), ("--to", new)):
        if stage not in taken:
            there = ", ".join(taken) or "none"
            raise BadInput(option, f"there is no snapshot {stage[:20]!r}.", f"There are: {there}.")
    differs = content_diff(taken[old], taken[new])
    rows = [{"field": one.field, old: one.before, new: one.after} for one in differs]
    show(rows, ("field", old, new), form)


@evidence.command("make")
def evidence_make(
    remediation: Annotated[str, typer.Argument(metavar="REMEDIATION", help="A remediation's id.")],
    output: Annotated[
        Path, typer.Option(help="The directory to write both files to, or the JSON file.")
    ],
    form: FormatOption = Format.TABLE,
) -> None:
    """Write the evidence of one remediation: a JSON file that proves, and a page that is read."""
    from tasks.evidence_page import page
    from tasks.model import sha256
    from tasks.warehouse.database import connect
    from tasks.warehouse.evidence import evidence_of

    with connect() as warehouse:
        found = evidence_of(warehouse, remediation.strip())
    file = output
    if output.suffix != ".json":
        file = output / f"evidence-{found['remediation']}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(found, indent=1, sort_keys=True) + "\n"
    file.write_text(text, encoding="utf-8")
    readable = file.with_suffix(".html")
    readable.write_text(page(found, file=file.name, digest=sha256(text)), encoding="utf-8")
    _done(
        {"evidence": str(file), "page": str(readable)}, f"Written to {file} and {readable}.", form
    )


@evidence.command("verify")
def evidence_verify(
    file: Annotated[Path, typer.Argument(help="The JSON file that `suture evidence make` wrote.")],
    head_file: Annotated[
        Path | None,
        typer.Option("--head", help="What `suture audit head` wrote: the chain must meet it."),
    ] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """Check evidence without a database: entries, chain, plan, snapshots. Exit code 1: broken."""
    from tasks.evidence import problems

    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        raise BadInput("FILE", f"{file} is not JSON.", "Name an evidence file.") from None
    wrong = problems(found, _head("", head_file))
    end = found["chain"]["head"]
    said = {
        "holds": not wrong,
        "remediation": found["remediation"],
        "head": f"{end['number']}:{end['hash']}",
        "head_met": "not asked: compare it, or give --head" if head_file is None else not wrong,
    }
    show_one(said | ({"problems": wrong} if wrong else {}), form)
    raise typer.Exit(1 if wrong else 0)


@issuer.command("documents")
def issuer_documents(
    to: Annotated[
        Path | None,
        typer.Option(help="Write them below this directory, as a static website has them."),
    ] = None,
) -> None:
    """Print the OpenID documents that you host at the issuer's address, by their addresses.

    Azure, and customers' token endpoints, read Suture's public keys there. Nothing in them is
    secret.
    """
    from tasks import settings
    from tasks.clouds.issuer import documents
    from tasks.inventory import load_inventory

    found = load_inventory(settings.inventory_path()).issuer
    if found is None:
        raise BadInput("issuer", "is not in the inventory.", "Add its url, key_file and key_id.")
    names = (".well-known/openid-configuration", "jwks.json")
    pages = dict(zip(names, documents(found), strict=True))
    if to is None:
        typer.echo(
            json.dumps({f"{found.url}/{name}": page for name, page in pages.items()}, indent=2)
        )
        return
    for name, page in pages.items():
        file = to / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps(page, indent=2) + "\n", encoding="utf-8")
        typer.echo(str(file))


def _values(pairs: Sequence[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadInput("--value", "has no `=`.", "Write NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


if __name__ == "__main__":
    main()
