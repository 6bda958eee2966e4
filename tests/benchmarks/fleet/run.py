"""The fleet benchmark: Suture, two floors, boto3, Prowler and c7n-org on one simulated fleet.

Of AWS all of them; Azure's subscriptions are read by Suture's engine alone. Each cloud is read
twice by that engine: by rules that are compared, and by the whole rule table.

    make benchmark                              everything; writes fleet.json and fleet.svg beside
    make benchmark ARGS="--quick --json"        under a minute, without the peers, one JSON line

Every contender is a program of its own (``contender.py``), measured from outside by the same
means, one after another. A contender that did not do all it should counts as failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

from contender import Job, Outcome
from measuring import Memory, cpu_seconds, memory_measure
from report import Figures, as_json, median, plot, table
from simulator import Simulator, SimulatorFailed, measured_ceiling
from truth import findings

from tasks.clouds.transport import Limits
from tasks.model import Cloud
from tasks.rules import RULES as ROWS

HERE = Path(__file__).parent
CACHE = HERE.parents[2] / "build" / "benchmark"
CALLS = 50  # of a scan of one account
FULL, QUICK = (100, 1_000, 10_000), (300,)
# The rules whose reading is those 50 calls, which the floors make as well, and of which the peers
# have the like.
RULES = ",".join(
    (
        *("aws_ec2_security_group_ssh_not_open", "aws_ec2_security_group_rdp_not_open"),
        *("aws_ec2_security_group_all_ports_not_open", "aws_ec2_ebs_encrypted_by_default"),
        *("aws_s3_bucket_public_access_blocked", "aws_s3_bucket_versioning_enabled"),
        *("aws_s3_bucket_tls_only", "aws_iam_password_policy_length"),
    )
)
# As many of Azure's, about what the simulated subscriptions hold: doors and storage.
AZURE_RULES = ",".join(
    (
        *("azure_network_security_group_ssh_not_open", "azure_network_security_group_rdp_not_open"),
        *("azure_network_security_group_any_port_not_open", "azure_storage_account_https_only"),
        *("azure_storage_account_public_blob_access_off", "azure_storage_account_minimum_tls"),
        "azure_storage_account_shared_key_access_off",
        "azure_storage_account_network_default_deny",
    )
)
TABLE, AZURE_TABLE = (
    ",".join(one.id for one in ROWS if one.cloud is cloud) for cloud in (Cloud.AWS, Cloud.AZURE)
)
WARM_UP = 64  # accounts: the simulator makes its answers when they are first asked for


@dataclass(frozen=True, slots=True, kw_only=True)
class Contender:
    """``most`` accounts are given to it, however many the run has; ``calls`` an account, if exact.

    ``at_once`` multiplies the accounts in flight, for one that would else wait for the limits.
    ``judges``: it finds exactly what the simulated fleet holds of those rules. A ``peer`` is
    somebody else's program in an environment of its own. ``rules`` are the ones in force, of that
    ``cloud``, whose accounts or subscriptions it scans.
    """

    name: str
    script: str
    most: int = 10_000
    calls: int | None = CALLS
    at_once: int = 1
    judges: bool = False
    peer: bool = False
    seconds: float = 900
    rules: str = RULES
    cloud: Cloud = Cloud.AWS

    @property
    def quick(self) -> bool:
        """Whether it is in a run of less than a minute."""
        return not self.peer and self.rules == RULES


CONTENDERS = (
    Contender(name="floor-a", script="floor_a.py"),
    Contender(name="floor-b", script="floor_b.py", at_once=2),
    Contender(name="suture", script="suture_flow.py", judges=True),
    Contender(name="suture-engine", script="suture_engine.py", most=1_000, judges=True),
    # Every row of the table; what the simulated accounts hold of other kinds is nothing.
    Contender(name="suture-table", script="suture_engine.py", most=1_000, calls=None, rules=TABLE),
    # How many calls a subscription costs depends on how many share Resource Graph's answers.
    Contender(
        name="suture-azure",
        script="suture_engine.py",
        most=1_000,
        calls=None,
        judges=True,
        rules=AZURE_RULES,
        cloud=Cloud.AZURE,
    ),
    Contender(
        name="suture-azure-table",
        script="suture_engine.py",
        most=1_000,
        calls=None,
        rules=AZURE_TABLE,
        cloud=Cloud.AZURE,
    ),
    Contender(name="boto3", script="boto3_clients.py", most=100),
    Contender(
        name="c7n-org", script="peer_c7n_org.py", most=10, calls=None, judges=True, peer=True
    ),
    # Its checks of buckets ask for less (two flags of four), so its findings are not the same.
    Contender(name="prowler", script="peer_prowler.py", most=4, calls=None, peer=True),
)

WARMER = CONTENDERS[1]


class Parser(argparse.ArgumentParser):
    """A wrong argument is one line that says what to write instead."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"benchmark: {message}. See --help.\n")


def arguments(words: Sequence[str]) -> argparse.Namespace:
    """The run that ``words`` ask for; ends the program with exit code 2 when they are wrong."""
    parser = Parser(prog="make benchmark", description=__doc__, add_help=True)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("--quick", action="store_true", help="under a minute, without the peers")
    parser.add_argument("--json", action="store_true", help="print one JSON line, nothing else")
    parser.add_argument(
        "--accounts", type=_numbers, metavar="N,N", help="fleet sizes, such as 100,1000"
    )
    parser.add_argument(
        "--only",
        action="append",
        metavar="NAME",
        help=f"only this contender; may be repeated: {', '.join(one.name for one in CONTENDERS)}",
    )
    parser.add_argument("--latency-ms", type=_milliseconds, default=40.0, metavar="MS")
    parser.add_argument("--rounds", type=_one_or_more, default=1, help="the middle one counts")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FOLDER",
        help="where to write fleet.json and fleet.svg (only a full run writes them by itself)",
    )
    given = parser.parse_args(words)
    known = {one.name for one in CONTENDERS}
    for name in given.only or ():
        if name not in known:
            there = ", ".join(one.name for one in CONTENDERS)
            parser.error(f"--only {name}: there is no such contender, but {there}")
    if given.out is not None and not given.out.is_dir():
        parser.error(f"--out {given.out} is not a folder")
    given.full = not (given.quick or given.only or given.accounts)
    given.accounts = given.accounts or (QUICK if given.quick else FULL)
    return given


def _numbers(text: str) -> tuple[int, ...]:
    try:
        return tuple(sorted({_one_or_more(part) for part in text.split(",")}))
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a list of numbers of accounts such as 100,1000"
        ) from None


def _one_or_more(text: str) -> int:
    number = int(text) if text.strip().isdecimal() else 0
    if not 1 <= number <= 100_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 to 100,000")
    return number


def _milliseconds(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = -1
    if not 0 <= number <= 10_000:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time from 0 to 10,000 ms")
    return number


def chosen(given: argparse.Namespace) -> list[tuple[Contender, int]]:
    """The contenders of a run, each with every number of accounts that it is given."""
    contenders = [
        one
        for one in CONTENDERS
        if (one.name in given.only if given.only else not (given.quick and not one.quick))
    ]
    pairs = []
    for one in contenders:
        sizes = [size for size in given.accounts if size <= one.most] or [one.most]
        pairs += [(one, size) for size in sizes]
    return pairs


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def measure(contender: Contender, job: Job, simulator: Simulator) -> Figures:
    """Run one contender from its start to its end, and measure the part that is the scan."""
    name, accounts = contender.name, job.accounts
    process = subprocess.Popen(
        [sys.executable, str(HERE / contender.script)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    answers = _lines(process)
    try:
        began = time.perf_counter()
        _tell(process, json.dumps(asdict(job)))
        ready = _answer(answers, contender.seconds)
        start_seconds = time.perf_counter() - began
        apart = ready["apart"]
        simulator.reset()
        with Memory(process.pid, apart) as memory:
            cpu, cpu_apart = cpu_seconds([process.pid]), cpu_seconds(apart)
            began = time.perf_counter()
            _tell(process, "go")
            answer = _answer(answers, contender.seconds)
            seconds = time.perf_counter() - began
            cpu, cpu_apart = cpu_seconds([process.pid]) - cpu, cpu_seconds(apart) - cpu_apart
        stats = simulator.stats()
    except ContenderFailed as problem:
        return Figures(contender=name, accounts=accounts, cloud=job.cloud, failed=str(problem))
    finally:
        _end(process)
    outcome = Outcome(**answer)
    without = {"cpu_seconds": cpu - cpu_apart, "peak_rss_mb": memory.peak_mb_without}
    return Figures(
        contender=name,
        accounts=accounts,
        cloud=job.cloud,
        seconds=seconds,
        cpu_seconds=cpu,
        calls=stats["requests"],
        peak_rss_mb=memory.peak_mb,
        start_seconds=start_seconds,
        simulator_cpu_seconds=stats["busy_cpu_seconds"],
        findings=outcome.findings,
        without_servers=without if apart else None,
        notes=outcome.notes,
        failed=what_is_wrong(contender, job, outcome, stats),
    )


def what_is_wrong(
    contender: Contender, job: Job, outcome: Outcome, stats: Mapping[str, Any]
) -> str:
    """Why a contender's run does not count; empty when it did all it should.

    ``stats`` are the simulator's, of that run.
    """
    accounts, calls = job.accounts, stats["requests"]
    if outcome.errors:
        return str(outcome.errors[0])
    if outcome.covered != accounts:
        return f"it covered {outcome.covered} of {accounts} accounts"
    if not calls:
        return "no call reached the simulator"
    if contender.calls is not None and calls != contender.calls * accounts:
        return f"{calls} calls reached the simulator, not {contender.calls * accounts}"
    if wrong := stats["wrong_signatures"]:
        return f"{wrong} of {stats['verified']} signatures that were checked are wrong"
    if contender.judges and outcome.findings != (held := findings(job)):
        return f"it found {outcome.findings} of {held} findings"
    return ""


class ContenderFailed(Exception):
    """A contender ended, or said nothing for too long."""


def _lines(process: subprocess.Popen[str]) -> queue.SimpleQueue[str]:
    """The lines that ``process`` prints, and "" at its end, to be waited for with a limit."""
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read() -> None:
        assert process.stdout is not None
        with process.stdout as printed:
            for line in printed:
                lines.put(line)
        lines.put("")

    threading.Thread(target=read, daemon=True).start()
    return lines


def _tell(process: subprocess.Popen[str], line: str) -> None:
    assert process.stdin is not None
    try:
        process.stdin.write(line + "\n")
        process.stdin.flush()
    except BrokenPipeError:
        raise ContenderFailed("it ended early; its own words are above") from None


def _answer(lines: queue.SimpleQueue[str], seconds: float) -> dict[str, Any]:
    try:
        line = lines.get(timeout=seconds)
    except queue.Empty:
        raise ContenderFailed(f"it took more than {seconds:.0f} s") from None
    if not line:
        raise ContenderFailed("it ended early; its own words are above")
    answer: dict[str, Any] = json.loads(line)
    return answer


def _end(process: subprocess.Popen[str]) -> None:
    """Close its input, which tells it to clean up; then insist."""
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()
    for insist in (process.terminate, process.kill):
        try:
            process.wait(30)
            return
        except subprocess.TimeoutExpired:
            insist()
    process.wait()


def job_for(contender: Contender, fleet: dict[str, Any], accounts: int) -> Job:
    """The same limits for everyone that can be told them: those of one of Suture's processes."""
    limits = Limits()
    return Job(
        fleet=fleet,
        accounts=accounts,
        processes=os.cpu_count() or 1,
        accounts_at_once=contender.at_once * limits.accounts,
        calls_at_once=limits.calls,
        connections=limits.connections,
        cloud=contender.cloud,
        cache=str(CACHE),
        rules=contender.rules,
    )


def run(given: argparse.Namespace) -> tuple[list[Figures], dict[str, Any]]:
    """Run what was asked for. Returns the figures, and the settings they were measured with."""
    pairs = chosen(given)
    settings = describe(given)
    if given.full:
        say("Measuring what the simulator can serve alone ...")
        settings["simulator"]["ceiling"] = measured_ceiling()
    results = []
    most = {
        cloud: max((size for one, size in pairs if one.cloud is cloud), default=0)
        for cloud in Cloud
    }
    with Simulator(
        accounts=max(WARM_UP, most[Cloud.AWS]),
        subscriptions=max(WARM_UP, most[Cloud.AZURE]) if most[Cloud.AZURE] else 0,
        latency_ms=given.latency_ms,
    ) as simulator:
        warm = measure(WARMER, job_for(WARMER, simulator.fleet, WARM_UP), simulator)
        if warm.failed:
            raise SimulatorFailed(f"the simulator could not be warmed: {warm.failed}")
        # What they alone ask for; one that fails here will say why when it is measured.
        for other in dict.fromkeys(one for one, _ in pairs if one.rules != RULES):
            measure(other, job_for(other, simulator.fleet, WARM_UP), simulator)
        for contender, size in pairs:
            rounds = []
            for number in range(1, given.rounds + 1):
                which = f", round {number} of {given.rounds}" if given.rounds > 1 else ""
                say(f"{contender.name}, {size:,} accounts{which} ...")
                rounds.append(
                    measure(contender, job_for(contender, simulator.fleet, size), simulator)
                )
            results.append(median(rounds))
            one = results[-1]
            speed = f"{one.accounts_per_s:,.2f} accounts a second"
            say(f"  failed: {one.failed}" if one.failed else f"  {speed}")
    return results, settings


def describe(given: argparse.Namespace) -> dict[str, Any]:
    """When, where and how a run was made."""
    limits = Limits()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "memory_measured_as": memory_measure(),
        "rounds": given.rounds,
        "limits": {
            "processes": os.cpu_count(),
            "accounts": limits.accounts,
            "calls": limits.calls,
            "connections": limits.connections,
        },
        "simulator": {"latency_ms": given.latency_ms, "processes": 1, "tls": True},
    }


def write(results: Sequence[Figures], settings: dict[str, Any], folder: Path) -> None:
    """The record and the plot of a run."""
    record = json.dumps(as_json(results, settings), indent=2)
    (folder / "fleet.json").write_text(record + "\n", encoding="utf-8")
    others = [one.name for one in CONTENDERS if one.calls != CALLS]
    caption = (
        f"{settings['cores']} cores, {settings['simulator']['latency_ms']:g} ms a call, "
        f"{CALLS} calls an account for all but {', '.join(others)}; {settings['date'][:10]}"
    )
    plot(results, caption, folder / "fleet.svg")


def main(words: Sequence[str]) -> int:
    """Run the benchmark. Returns the exit code: 0 only if no contender failed."""
    given = arguments(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that what was started ends too
    try:
        results, settings = run(given)
    except SimulatorFailed as problem:
        say(f"benchmark: {problem}")
        return 1
    except KeyboardInterrupt:
        say("Stopped.")
        return 130
    if given.json:
        print(json.dumps(as_json(results, settings)), flush=True)
    else:
        print(table(results))
    if folder := given.out or (HERE if given.full else None):
        write(results, settings, folder)
    return 1 if any(one.failed for one in results) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
