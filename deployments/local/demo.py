"""The demo: the main job on the embedded default, through the same public API a team uses."""

from __future__ import annotations

import json
import re
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from deployments.local.children import Child
from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from tasks.report import posture_summary
from tasks.warehouse import remediations
from tasks.warehouse.database import connect
from tasks.warehouse.scans import latest_scan, posture

APPROVER = "Demo Approver"
GATE_MINUTES = 10


@dataclass(slots=True)
class Approval:
    """A remediation run that waits: its account, its findings, and how it was answered."""

    run_id: str
    cloud: str
    account: str
    findings: int
    decision: str = ""
    outcome: str = ""


@dataclass(slots=True)
class Summary:
    """What the demo found and did; ``as_json`` is what --json prints."""

    posture: dict[str, Any] = field(default_factory=dict)
    approvals: list[Approval] = field(default_factory=list)
    remediations: dict[str, int] = field(default_factory=dict)
    resolved: int = 0
    code_found_at_rest: int = 0
    problems: list[str] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)

    def as_json(self) -> dict[str, Any]:
        found = self.posture.get("findings", {})
        return {
            "accounts": _two(self.posture.get("accounts", {})),
            "subscriptions": _two(self.posture.get("subscriptions", {})),
            "resources": self.posture.get("resources", 0),
            "findings": {
                "open": found.get("open", 0),
                "resolved": self.resolved,
                "by_severity": found.get("by_severity", {}),
                "by_cloud": found.get("by_cloud", {}),
            },
            "remediations": self.remediations,
            "code_found_at_rest": self.code_found_at_rest,
            "seconds": round(time.monotonic() - self.started, 1),
            "problems": self.problems,
        }


def _two(counts: Mapping[str, int]) -> dict[str, int]:
    return {"scanned": counts.get("scanned", 0), "failed": counts.get("failed", 0)}


def run_demo(*, aws: int, azure: int, seed: int, once: bool, approve: bool, as_json: bool) -> int:
    """Run the demo. Returns the exit code: 0 only if every step held."""
    console = Console(stderr=as_json, highlight=False)
    summary = Summary()
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with (
            _progress(console) as progress,
            Stack(aws=aws, azure=azure, seed=seed, say=progress.say) as stack,
        ):
            demo = Demo(stack, summary, console)
            demo.scan(progress)
            demo.wait_for_approvals(progress)
            if approve:
                demo.approve_all(progress)
            demo.conclude(progress)
            progress.stop()
            if as_json:
                print(json.dumps(summary.as_json()), flush=True)  # noqa: T201
            else:
                demo.show()
            if not once and not as_json:
                demo.stay()
    except KeyboardInterrupt:
        console.print("Stopped; everything the demo started is gone.")
        return 0 if not once else 130
    return 1 if summary.problems else 0


class Demo:
    """The steps of the demo on a running stack. A step that does not hold is noted, not hidden."""

    def __init__(self, stack: Stack, summary: Summary, console: Console) -> None:
        self.stack = stack
        self.summary = summary
        self.console = console
        self.api = PrefectApi(stack.api_url)
        self.codes: set[str] = set()
        stack.closing(self.api.close)

    # --- the steps -----------------------------------------------------------------------------

    def scan(self, progress: Shown) -> None:
        """Start the scan deployment and show how many accounts are done until it ends."""
        run_id = self.api.start("scan-fleet/nightly", {"batch_size": 10})
        progress.say("Scanning the fleet")
        while not self.api.ended(run_id):
            progress.count(*self._accounts_done())
            time.sleep(0.3)
        state = self.api.state(run_id)
        if state["type"] != "COMPLETED":
            self.problem(f"the scan ended as {state['name']}: {state.get('message')}")
        with self.warehouse() as warehouse:
            self.summary.posture = posture_summary(posture(warehouse, latest_scan(warehouse)))
        self._compare_with_truth()

    def wait_for_approvals(self, progress: Shown) -> None:
        """Wait until every approval that triage asked for can be answered in the UI."""
        progress.say("Planning the remediations that wait for an approver")
        expected = self.api.runs_of("remediate/remediate")
        deadline = time.monotonic() + 90
        while waiting := [run for run in expected if not self._settled(run)]:
            if time.monotonic() > deadline:
                self.problem(f"{len(waiting)} remediation runs did not come to wait for approval")
                break
            progress.count(len(expected) - len(waiting), len(expected))
            time.sleep(0.3)
        with self.warehouse() as warehouse:
            records = remediations.waiting(warehouse)
        for run_id in dict.fromkeys(record.run_id for record in records):
            mine = [record for record in records if record.run_id == run_id]
            first = mine[0]
            self.summary.approvals.append(Approval(run_id, first.cloud, first.account, len(mine)))

    def approve_all(self, progress: Shown) -> None:
        """Answer every approval as an approver would; with several, deny the last one."""
        progress.say("Approving with codes from the customer's gate")
        approvals = self.summary.approvals
        gates: list[Child] = []
        for number, approval in enumerate(approvals, start=1):
            approval.decision = "deny" if number == len(approvals) > 2 else "approve"
            answer = {"decision": approval.decision, "approver": APPROVER}
            if approval.decision == "approve":
                gate, code = self._open_gate(approval)
                gates.append(gate)
                self.codes.add(code)
                answer["code"] = code
            said = self.api.resume(approval.run_id, answer)
            if said != "ACCEPT":
                self.problem(f"the answer to {approval.run_id} was not accepted: {said}")
            progress.count(number, len(approvals))
        progress.say("Applying and verifying the approved changes")
        states = self.api.wait([approval.run_id for approval in approvals], seconds=120)
        for gate in gates:
            gate.stop()
        for approval in approvals:
            state = states[approval.run_id]
            approval.outcome = state["name"]
            wanted = "Denied" if approval.decision == "deny" else "Remediated"
            if state["name"] != wanted:
                self.problem(
                    f"{approval.run_id} ended as {state['name']}, not {wanted}: "
                    f"{state.get('message')}"
                )

    def conclude(self, progress: Shown) -> None:
        """Count what became of everything, and look for the typed codes in every byte at rest."""
        progress.say("Looking for the typed codes in every file at rest")
        summary = self.summary
        with self.warehouse() as warehouse:
            now = posture_summary(posture(warehouse, latest_scan(warehouse)))
            summary.posture["findings"] = now["findings"]
            summary.resolved = _number(
                warehouse, "SELECT count(*) FROM findings WHERE status = 'resolved'"
            )
            summary.remediations = _remediation_counts(warehouse)
        if summary.remediations["failed"]:
            self.problem(f"{summary.remediations['failed']} remediations failed")
        if not summary.remediations["automatic"]:
            self.problem("no finding was closed by policy")
        self.stack.write_everything_out()
        summary.code_found_at_rest = code_bytes_at_rest(self.stack.dir, self.codes)
        if summary.code_found_at_rest:
            self.problem("a typed code was found at rest")

    def stay(self) -> None:
        """Stay up for the person to click through, until Ctrl-C."""
        self.console.print("\nCtrl-C stops everything and leaves nothing behind.")
        while True:
            time.sleep(3600)

    # --- what a person sees --------------------------------------------------------------------

    def show(self) -> None:
        """Print the result, in the order a newcomer asks for it."""
        posture, summary = self.summary.posture, self.summary
        self.console.print()
        self.console.print(
            f"[bold]Scanned[/] {posture['accounts']['scanned']} AWS accounts "
            f"({posture['accounts']['failed']} failed) and "
            f"{posture['subscriptions']['scanned']} Azure subscriptions "
            f"({posture['subscriptions']['failed']} failed): {posture['resources']} resources."
        )
        self._show_not_scanned()
        self._show_findings()
        self.console.print(
            f"[bold]Closed by policy:[/] {summary.remediations['automatic']} findings, "
            "without a person."
        )
        if summary.remediations["approved"] or summary.remediations["denied"]:
            self.console.print(
                f"[bold]Answered:[/] {summary.remediations['approved']} findings approved and "
                f"closed, {summary.remediations['denied']} denied. The typed codes were found in "
                f"{summary.code_found_at_rest} bytes at rest."
            )
        else:
            self._show_waiting()
        self._show_warehouse()
        for problem in summary.problems:
            self.console.print(f"[red]Did not hold:[/] {escape(problem)}")

    def _show_not_scanned(self) -> None:
        with self.warehouse() as warehouse:
            rows = posture(warehouse, latest_scan(warehouse)).not_scanned
        for one in rows:
            self.console.print(f"  [dim]{one.status} {one.account}: {escape(one.reason)}[/]")

    def _show_findings(self) -> None:
        with self.warehouse() as warehouse:
            by_cloud = posture(warehouse, latest_scan(warehouse)).findings
        table = Table(title="Open findings", box=None, title_justify="left", title_style="bold")
        severities = list(self.summary.posture["findings"]["by_severity"])
        for column in ("", *severities):
            table.add_column(column, justify="left" if not column else "right")
        for cloud, counts in by_cloud.items():
            table.add_row(cloud, *(str(counts.get(severity, 0)) for severity in severities))
        self.console.print(table)

    def _show_waiting(self) -> None:
        self.console.print(
            f"[bold]Waiting for an approver:[/] {len(self.summary.approvals)} remediations. "
            "Open one, press Resume, and type the code."
        )
        for approval in self.summary.approvals:
            what = "change" if approval.findings == 1 else "changes"
            self.console.print(
                f"  {approval.cloud} {approval.account}, {approval.findings} {what}: "
                f"{self.stack.env['SUTURE_UI_URL']}/v2/runs/flow-run/{approval.run_id}",
                soft_wrap=True,
            )
        script = self.stack.customer_script()
        self.console.print(
            "The code comes from the customer, who opens the gate with their own credentials:\n"
            f"  {script} gate open ACCOUNT --minutes {GATE_MINUTES}",
            soft_wrap=True,
        )

    def _show_warehouse(self) -> None:
        self.console.print(
            "[bold]The warehouse[/] answers SQL, read-only, at\n"
            f"  {self.stack.analyst_url}\n  "
            "Views such as posture_by_account_and_day stand beside the tables; in Python: "
            "from tasks.warehouse.accessor import findings",
            soft_wrap=True,
        )

    # --- parts ---------------------------------------------------------------------------------

    @contextmanager
    def warehouse(self) -> Iterator[Connection]:
        with connect(self.stack.env["SUTURE_WAREHOUSE_URL"]) as connection:
            yield connection

    def problem(self, text: str) -> None:
        self.summary.problems.append(text)

    def _accounts_done(self) -> tuple[int, int]:
        with self.warehouse() as warehouse:
            row = warehouse.execute(
                "SELECT count(DISTINCT s.account), count(DISTINCT a.account) "
                "FROM scan_accounts a LEFT JOIN stage_accounts s USING (scan_id, cloud, account) "
                "WHERE a.status <> 'skipped'"
            ).fetchone()
        return (row[0], row[1]) if row else (0, 0)

    def _settled(self, run_id: str) -> bool:
        return self.api.waits(run_id) or self.api.ended(run_id)

    def _compare_with_truth(self) -> None:
        """What was planted and what was found must be the same, account by account."""
        truth = json.loads(Path(self.stack.fleet["truth"]).read_text())
        planted = {(f["account"], f["rule"], f["resource"]) for f in truth["findings"]}
        with self.warehouse() as warehouse:
            found = set(warehouse.execute("SELECT account, rule, resource FROM findings"))
        if missing := planted - found:
            self.problem(f"{len(missing)} planted findings were not found: {min(missing)}")
        if extra := found - planted:
            self.problem(f"{len(extra)} findings were not planted: {min(extra)}")
        with self.warehouse() as warehouse:
            unscanned = posture(warehouse, latest_scan(warehouse)).not_scanned
        failed = {one.account: one.reason for one in unscanned if one.status != "skipped"}
        for account in failed.keys() - truth["failing"].keys():
            self.problem(f"{account} failed and was not made to: {failed[account]}")
        for account in truth["failing"].keys() - failed.keys():
            self.problem(f"{account} was made to fail and did not")

    def _open_gate(self, approval: Approval) -> tuple[Child, str]:
        """Run `suture gate open` as the customer and read the code from what it prints."""
        gate = self.stack.customer_child(
            f"gate-{approval.account}",
            *("gate", "open", approval.account, "--minutes", str(GATE_MINUTES)),
            *("--run", approval.run_id, "--format", "json"),
        )
        return gate, str(json.loads(gate.first_line(seconds=60))["code"])


def code_bytes_at_rest(directory: Path, codes: set[str]) -> int:
    """How many bytes of the codes stand in any file below ``directory``.

    Six digits turn up by chance inside longer numbers, hashes and fractions of a second; a code
    that was stored stands by itself, between anything that is neither letter, digit nor a point.
    """
    if not codes:
        return 0
    alone = "|".join(re.escape(code) for code in sorted(codes))
    pattern = re.compile(rb"(?<![0-9A-Za-z.])(?:" + alone.encode() + rb")(?![0-9A-Za-z])")
    found = 0
    for path in directory.rglob("*"):
        if path.is_file():
            found += sum(len(match) for match in pattern.findall(path.read_bytes()))
    return found


def _remediation_counts(warehouse: Connection) -> dict[str, int]:
    return {
        name: _number(warehouse, f"SELECT count(*) FROM remediations WHERE {condition}")  # noqa: S608
        for name, condition in {
            "automatic": "mode = 'automatic' AND state = 'remediated'",
            "approved": "mode = 'assisted' AND state = 'remediated'",
            "denied": "state = 'denied'",
            "failed": "state IN ('failed', 'undone', 'refused', 'drifted')",
        }.items()
    }


def _number(warehouse: Connection, query: str) -> int:
    row = warehouse.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


class Shown:
    """One progress bar whose text says what is being done."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._task = progress.add_task("Starting", total=None)

    def say(self, text: str) -> None:
        self._progress.reset(self._task, total=None, description=text)

    def count(self, done: int, total: int) -> None:
        self._progress.update(self._task, completed=done, total=total or None)

    def stop(self) -> None:
        self._progress.stop()


@contextmanager
def _progress(console: Console) -> Iterator[Shown]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Shown(progress)


def _interrupt(*_: object) -> None:
    """SIGTERM ends the demo as Ctrl-C does, with everything stopped in order."""
    sys.stderr.write("\n")
    raise KeyboardInterrupt
