"""The demo: the main job on the embedded default, through the same public API a team uses."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn
from rich.table import Table

from deployments.local.at_rest import bytes_in_files, bytes_in_rows
from deployments.local.children import Child
from deployments.local.prefect_api import TERMINAL, PrefectApi
from deployments.local.stack import INTERRUPTIONS, Stack
from tasks import settings
from tasks.errors import SutureError
from tasks.report import posture_summary
from tasks.warehouse import remediations
from tasks.warehouse.database import connect
from tasks.warehouse.scans import latest_scan, posture

APPROVER = "Demo Approver"
GATE_MINUTES = 10
MOST_LINES = 12  # of accounts that were not scanned

# How long things may take, in seconds. One emulated account never answers.
REQUEST_SECONDS = 5
PLAN_SECONDS = 120
GATE_SECONDS = 90
APPLY_SECONDS = 180


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
    ending = Ending()
    try:
        with (
            _progress(console, ending.check) as progress,
            Stack(aws=aws, azure=azure, seed=seed, say=progress.say) as stack,
        ):
            demo = Demo(stack, summary, console)
            demo.run(progress, approve=approve)
            progress.stop()
            if as_json:
                print(json.dumps(summary.as_json()), flush=True)  # noqa: T201
            else:
                demo.show()
            if not once and not as_json:
                ending.check()
                demo.stay()
    except KeyboardInterrupt:
        console.print("Stopped; everything the demo started is gone.")
        return 130 if once or as_json else 0
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
        os.environ["SUTURE_UI_URL"] = stack.env["SUTURE_UI_URL"]  # for the addresses shown here

    # --- the steps -----------------------------------------------------------------------------

    def run(self, progress: Shown, *, approve: bool) -> None:
        """All steps in order. One that breaks off ends them, and is what the summary then says."""
        try:
            self.scan(progress)
            self.wait_for_approvals(progress)
            if approve:
                self.approve_all(progress)
            self.conclude(progress, approved=approve)
        except (SutureError, psycopg.Error) as error:
            self.problem(str(error))

    def scan(self, progress: Shown) -> None:
        """Start the scan deployment and show how many accounts are done until it ends."""
        run_id = self.api.start(
            "scan-fleet/nightly", {"batch_size": 10, "request_seconds": REQUEST_SECONDS}
        )
        progress.say("Scanning the fleet")
        scanned = False
        while (state := self.api.state(run_id)).get("type") not in TERMINAL:
            done, accounts = self._accounts_done()
            if accounts and done == accounts and not scanned:
                scanned = True
                progress.say("Closing what policies close by themselves")
            if not scanned:
                progress.count(done, accounts)
            time.sleep(0.5)
        if state["type"] != "COMPLETED":
            self.problem(f"the scan ended as {state['name']}: {state.get('message')}")
        with self.warehouse() as warehouse:
            self.summary.posture = posture_summary(posture(warehouse, latest_scan(warehouse)))
        self._compare_with_truth()

    def wait_for_approvals(self, progress: Shown) -> None:
        """Wait until every approval that triage asked for can be answered in the UI."""
        progress.say("Planning the remediations that wait for an approver")
        expected = pending = self.api.runs_of("remediate/remediate")
        deadline = time.monotonic() + PLAN_SECONDS
        while pending:
            states = self.api.states(pending)
            pending = [run for run in pending if not self._settled(run, states.get(run, {}))]
            progress.count(len(expected) - len(pending), len(expected))
            if pending and time.monotonic() > deadline:
                self.problem(f"{len(pending)} remediation runs did not come to wait for approval")
                break
            if pending:
                time.sleep(0.5)
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
        denied = approvals[-1:] if len(approvals) > 2 else []
        for approval in denied:
            approval.decision = "deny"
            self._answer(approval)
        gates: list[Child] = []
        for approval, gate in self._gates([one for one in approvals if one not in denied]):
            gates.append(gate)
            code = str(json.loads(gate.first_line(seconds=GATE_SECONDS))["code"])
            self.codes.add(code)
            approval.decision = "approve"
            self._answer(approval, code=code)
            progress.count(len(gates), len(approvals) - len(denied))
        progress.say("Applying and verifying the approved changes")
        states = self.api.wait([one.run_id for one in approvals], seconds=APPLY_SECONDS)
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

    def _answer(self, approval: Approval, **code: str) -> None:
        answer = {"decision": approval.decision, "approver": APPROVER, **code}
        said = self.api.resume(approval.run_id, answer)
        if said != "ACCEPT":
            self.problem(f"the answer to {approval.run_id} was not accepted: {said}")

    def _gates(self, approvals: Sequence[Approval]) -> Iterator[tuple[Approval, Child]]:
        """For each approval its gate, as `suture gate open` opens it; the next opens meanwhile.

        Azure takes one code once, so a second subscription waits for the authenticator's next:
        there never wait two at a time.
        """
        opening: deque[tuple[Approval, Child]] = deque()
        for approval in approvals:
            if opening and (len(opening) == 2 or approval.cloud == opening[-1][0].cloud == "azure"):
                yield opening.popleft()
            if opening and approval.cloud == opening[-1][0].cloud == "azure":
                yield opening.popleft()
            opening.append((approval, self._open_gate(approval)))
        yield from opening

    def conclude(self, progress: Shown, *, approved: bool) -> None:
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
        if approved and not (self.codes and summary.remediations["approved"]):
            self.problem("no finding was approved and closed")
        self.stack.write_everything_out()
        summary.code_found_at_rest = self._bytes_at_rest()
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
        summary = self.summary
        if summary.posture:
            self._show_coverage()
            self._show_findings()
        if summary.remediations:
            self.console.print(
                "\n[bold]Closed by policy:[/] "
                f"{_many(summary.remediations['automatic'], 'finding')}, without a person."
            )
            self._show_approvals()
            self._show_warehouse()
        for problem in summary.problems:
            self.console.print(f"[red]Did not hold:[/] {escape(problem)}")

    def _show_coverage(self) -> None:
        found = self.summary.as_json()
        accounts, subscriptions = found["accounts"], found["subscriptions"]
        self.console.print(
            f"\n[bold]Scanned[/] {_many(accounts['scanned'], 'AWS account')} "
            f"({accounts['failed']} failed) and "
            f"{_many(subscriptions['scanned'], 'Azure subscription')} "
            f"({subscriptions['failed']} failed): {_many(found['resources'], 'resource')}."
        )
        with self.warehouse() as warehouse:
            rows = posture(warehouse, latest_scan(warehouse)).not_scanned
        for one in rows[:MOST_LINES]:
            reason = " ".join(one.reason.split())
            self._line(f"  [dim]{one.status:8} {one.account}: {escape(reason)}[/]")
        if len(rows) > MOST_LINES:
            self._line(f"  [dim]… and {len(rows) - MOST_LINES} more[/]")

    def _show_findings(self) -> None:
        with self.warehouse() as warehouse:
            by_cloud = posture(warehouse, latest_scan(warehouse)).findings
        table = Table(title="Open findings", box=None, title_justify="left", title_style="bold")
        severities = list(self.summary.posture["findings"]["by_severity"])
        for column in ("", *severities):
            table.add_column(column, justify="left" if not column else "right")
        self.console.print()
        for cloud, counts in by_cloud.items():
            table.add_row(cloud, *(str(counts.get(severity, 0)) for severity in severities))
        self.console.print(table)

    def _show_approvals(self) -> None:
        counts, approvals = self.summary.remediations, self.summary.approvals
        if any(approval.decision for approval in approvals):
            self.console.print(
                f"[bold]Answered:[/] {_many(counts['approved'], 'finding')} approved and closed, "
                f"{counts['denied']} denied. The typed codes stand in "
                f"{self.summary.code_found_at_rest} bytes at rest."
            )
            return
        self.console.print(
            f"\n[bold]Waiting for an approver:[/] {_many(len(approvals), 'remediation')}. "
            "Open one, press Resume, type the code."
        )
        for approval in approvals:
            what = _many(approval.findings, "change")
            self._line(f"  {approval.cloud} {approval.account}, {what}:")
            self._whole(f"    {settings.run_address(approval.run_id)}")
        if approvals:
            self.console.print("The code comes from the customer, in another terminal:")
            command = f"{self.stack.customer_script()} gate open {approvals[0].account}"
            self._whole(f"  {command} --minutes {GATE_MINUTES}")

    def _show_warehouse(self) -> None:
        self.console.print("\n[bold]The warehouse[/] answers SQL, read-only, at")
        self._whole(f"  {self.stack.analyst_url}")
        self._line("  SELECT * FROM open_by_severity_and_age;  -- or a table: findings, scans, …")
        self.console.print("and Python, with SUTURE_WAREHOUSE_URL set to that address:")
        self._line("  from tasks.warehouse.accessor import findings; findings(severity='high')")

    def _line(self, text: str) -> None:
        """One line, cut where the terminal ends."""
        self.console.print(text, no_wrap=True, overflow="ellipsis")

    def _whole(self, text: str) -> None:
        """Something to copy: never broken or cut."""
        self.console.print(text, soft_wrap=True, markup=False)

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

    def _settled(self, run_id: str, state: Mapping[str, Any]) -> bool:
        if state.get("type") == "PAUSED":
            return self.api.waits(run_id)
        return state.get("type") in TERMINAL

    def _compare_with_truth(self) -> None:
        """What was planted and what was found must be the same, account by account."""
        truth = json.loads(Path(self.stack.fleet["truth"]).read_text())
        planted = {(f["account"], f["rule"], f["resource"]) for f in truth["findings"]}
        with self.warehouse() as warehouse:
            found = set(
                warehouse.execute(
                    "SELECT account, rule, resource FROM findings WHERE rule = ANY(%s)",
                    (truth["rules"],),
                )
            )
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

    def _open_gate(self, approval: Approval) -> Child:
        """Run `suture gate open` as the customer; its first line holds the code."""
        return self.stack.customer_child(
            f"gate-{approval.account}",
            *("gate", "open", approval.account, "--minutes", str(GATE_MINUTES)),
            *("--run", approval.run_id, "--format", "json"),
        )

    def _bytes_at_rest(self) -> int:
        """The typed codes in all files of the demo, and in all rows of both its databases."""
        found = bytes_in_files(self.stack.dir, self.codes)
        for database in ("prefect", "warehouse"):
            with connect(self.stack.postgres.url(database, role="postgres")) as rows:
                found += bytes_in_rows(rows, self.codes)
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


def _many(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _number(warehouse: Connection, query: str) -> int:
    row = warehouse.execute(query.encode()).fetchone()
    return int(row[0]) if row else 0


class Ending:
    """Ctrl-C, a hang-up and SIGTERM end the demo alike; a second one must not end the ending.

    What a signal's handler raises is lost where Python drops exceptions, such as in the callbacks
    of weak references, of which each import makes some. So each step asks again.
    """

    def __init__(self) -> None:
        self._asked = False
        for number in INTERRUPTIONS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup
                signal.signal(number, self._ask)

    def check(self) -> None:
        """Raise KeyboardInterrupt if the end has been asked for."""
        if self._asked:
            raise KeyboardInterrupt

    def _ask(self, *_: object) -> None:
        self._asked = True
        for number in INTERRUPTIONS:
            signal.signal(number, signal.SIG_IGN)
        raise KeyboardInterrupt


class Shown:
    """One progress bar whose text says what is being done; ``check`` is called as it moves on."""

    def __init__(self, progress: Progress, check: Callable[[], None]) -> None:
        self._progress = progress
        self._check = check
        self._task = progress.add_task("Starting", total=None)

    def say(self, text: str) -> None:
        self._check()
        self._progress.reset(self._task, total=None, description=text)

    def count(self, done: int, total: int) -> None:
        self._check()
        self._progress.update(self._task, completed=done, total=total or None)

    def stop(self) -> None:
        self._progress.stop()


@contextmanager
def _progress(console: Console, check: Callable[[], None]) -> Iterator[Shown]:
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        yield Shown(progress, check)
