"""The `suture` command: thin, every verb a flow, a task or a local service."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markdown import Markdown
from rich.table import Table

from tasks.errors import SutureError

app = typer.Typer(
    name="suture",
    help="Find cloud misconfigurations in AWS accounts and Azure subscriptions, and close them.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
gate = typer.Typer(help="Open and close the gate of an account, with your own credentials.")
db = typer.Typer(help="The warehouse's database.")
policy = typer.Typer(help="The policies that say how findings are closed.")
app.add_typer(gate, name="gate", no_args_is_help=True)
app.add_typer(db, name="db", no_args_is_help=True)
app.add_typer(policy, name="policy", no_args_is_help=True)


class Format(StrEnum):
    TABLE = "table"
    JSON = "json"


FormatOption = Annotated[Format, typer.Option("--format", help="How to print the answer.")]


def main() -> None:
    """Run the command; an error of ours is one clear line and exit code 2."""
    try:
        app()
    except SutureError as error:
        print(f"suture: {error}", file=sys.stderr)  # noqa: T201
        raise SystemExit(2) from None


def show(rows: Sequence[Mapping[str, Any]], columns: Iterable[str], form: Format) -> None:
    """Print rows as a table of some columns, or whole as JSON."""
    if form is Format.JSON:
        typer.echo(json.dumps([dict(row) for row in rows], indent=2, default=str))
        return
    table = Table(box=None, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(_cell(row.get(column)) for column in columns))
    Console().print(table)


def show_one(values: Mapping[str, Any], form: Format) -> None:
    """Print one thing: a line for each value, or JSON."""
    if form is Format.JSON:
        typer.echo(json.dumps(dict(values), indent=2, default=str))
        return
    for name, value in values.items():
        typer.echo(f"{name.replace('_', ' ')}: {_cell(value)}")


def _cell(value: Any) -> str:
    if value is None or value == "":
        return "–"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value)
    return str(value)


# --- services ----------------------------------------------------------------------------------


@app.command()
def demo(
    aws: Annotated[int, typer.Option(min=1, max=2000, help="AWS member accounts.")] = 20,
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
    aws: Annotated[int, typer.Option(min=0, max=2000, help="AWS member accounts.")] = 20,
    azure: Annotated[int, typer.Option(min=0, max=2000, help="Azure subscriptions.")] = 10,
    seed: Annotated[int, typer.Option(help="Plants the same resources each time.")] = 7,
    data: Annotated[
        Path | None, typer.Option(help="Where to write the CA, keys, inventory and truth.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON line.")] = False,
) -> None:
    """Run just the emulated clouds until interrupted, and say how to reach them."""
    from deployments.local.fleet import run_fleet

    run_fleet(aws=aws, azure=azure, seed=seed, data=data, as_json=as_json)


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


# --- looking -----------------------------------------------------------------------------------


@app.command()
def rules(
    cloud: Annotated[str, typer.Option(help="Only this cloud: aws or azure.")] = "",
    service: Annotated[str, typer.Option(help="Only this service, such as ec2.")] = "",
    severity: Annotated[str, typer.Option(help="Only this severity.")] = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """List the rule table."""
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
        }
        for rule in RULES
        if (not cloud or rule.cloud == cloud)
        and (not service or rule.service == service)
        and (not severity or rule.severity == severity)
    ]
    show(rows, ("id", "severity", "title", "fix", "inputs"), form)


@app.command()
def guide(rule_id: Annotated[str, typer.Argument(metavar="RULE")]) -> None:
    """Print a rule's guide: what it means, how to fix it by hand, how to go back."""
    from tasks.rules import rule

    text = rule(rule_id).guide
    if sys.stdout.isatty():
        Console().print(Markdown(text))
    else:
        typer.echo(text)


@app.command()
def findings(
    severity: Annotated[str, typer.Option(help="Only this severity.")] = "",
    cloud: Annotated[str, typer.Option(help="Only this cloud.")] = "",
    account: Annotated[str, typer.Option(help="Only this account or subscription.")] = "",
    everything: Annotated[bool, typer.Option("--all", help="Resolved ones too.")] = False,
    parquet: Annotated[Path | None, typer.Option(help="Write them to this Parquet file.")] = None,
    form: FormatOption = Format.TABLE,
) -> None:
    """List findings from the warehouse, or export them."""
    from tasks.warehouse import accessor

    filters = {
        "severity": severity or None,
        "cloud": cloud or None,
        "account": account or None,
    }
    found = accessor.findings(open=None if everything else True, **filters)
    if parquet is not None:
        found.to_parquet(parquet, index=False)
        typer.echo(f"{len(found)} findings written to {parquet}")
        return
    rows = json.loads(found.to_json(orient="records", date_format="iso"))
    show(rows, ("id", "severity", "cloud", "account", "rule", "resource", "status"), form)


@app.command()
def scan(
    account: Annotated[
        list[str] | None, typer.Option("--account", help="Only this account; may be repeated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, max=500, help="Accounts a task scans.")] = 25,
    triage: Annotated[bool, typer.Option(help="Hand open findings to their policies.")] = True,
    form: FormatOption = Format.TABLE,
) -> None:
    """Scan the fleet of the inventory now, in this process, and show the posture."""
    from flows.scan import scan_fleet
    from tasks.report import posture_summary
    from tasks.warehouse.database import connect
    from tasks.warehouse.scans import latest_scan, posture

    state = scan_fleet(
        accounts=account or [],
        batch_size=batch_size,
        hand_to_triage=triage,
        return_state=True,
    )
    with connect() as warehouse:
        summary = posture_summary(posture(warehouse, latest_scan(warehouse)))
    show_one({"state": state.name, **summary}, form)
    raise typer.Exit(0 if state.is_completed() else 1)


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
    """Start a remediation run for findings of one account; it waits for an approver."""
    import getpass

    from tasks.triage import start_remediation

    run = start_remediation(finding, policy=policy, requested_by=getpass.getuser())
    show_one(run, form)


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
    list[str] | None, typer.Option("--run", help="Only for the resources of this remediation run.")
]
ResourceOption = Annotated[
    list[str] | None, typer.Option("--resource", help="Only for this resource id; repeatable.")
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
    form: FormatOption = Format.TABLE,
) -> None:
    """Open an account's gate with your own credentials, and print the code an approver types.

    AWS closes it by itself. Azure has no such date, so there this command stays until the time is
    over or Ctrl-C, and closes it.
    """
    from deployments.gate import open_by_hand

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
) -> None:
    """Close an account's gate now."""
    from deployments.gate import close_by_hand

    close_by_hand(account, source=source)
    typer.echo(f"The gate of {account} is closed.")


@gate.command("status")
def gate_status(
    account: Annotated[str, typer.Argument(help="An account number or subscription id.")],
    source: SourceOption = "",
    form: FormatOption = Format.TABLE,
) -> None:
    """Say whether an account's gate is open, until when and for what."""
    from deployments.gate import status_by_hand

    show_one(status_by_hand(account, source=source), form)


@gate.command("enroll")
def gate_enroll(
    seed_file: Annotated[
        Path, typer.Option(envvar="SUTURE_GATE_SEED_FILE", help="Where to keep the new TOTP seed.")
    ],
    name: Annotated[str, typer.Option(help="How an authenticator app calls it.")] = "gate",
) -> None:
    """Make a new TOTP seed, keep it in a file of yours, and print its otpauth address."""
    from deployments.gate import enroll

    typer.echo(enroll(seed_file, name))


def _line(values: Mapping[str, Any]) -> None:
    """One JSON line at once: a program waits for it while the gate stays open."""
    typer.echo(json.dumps(dict(values), default=str))
    sys.stdout.flush()


@db.command()
def upgrade() -> None:
    """Bring the warehouse's tables and views to this version."""
    from tasks.warehouse.database import upgrade as upgrade_database
    from tasks.warehouse.database import warehouse_url

    upgrade_database(warehouse_url())
    typer.echo("The warehouse is up to date.")


def _values(pairs: Sequence[str]) -> dict[str, str]:
    from tasks.errors import BadInput

    found = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise BadInput("--value", "has no `=`.", "Write NAME=VALUE.")
        found[name.strip()] = value.strip()
    return found


if __name__ == "__main__":
    main()
