"""The fleet benchmark measures what it says: a contender counts only if it did all it should."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from contender import Job, Outcome
from measuring import Memory, cpu_seconds
from report import Figures, as_json, markdown, median, plot, ratio_to_floor, suture_times, table
from run import CONTENDERS, Contender, arguments, chosen, job_for, measure, what_is_wrong
from simulator import Simulator
from truth import findings

from tasks.model import Cloud
from tasks.rules import RULES

RUN = Path(__file__).parent / "fleet" / "run.py"
FIGURES = {"accounts_per_s", "cpu_ms_per_account", "calls_per_account", "peak_rss_mb"}


def figures(contender: str, accounts: int, seconds: float, **more: Any) -> Figures:
    given = {"cpu_seconds": 0.012 * accounts, "calls": 50 * accounts, "peak_rss_mb": 109.0}
    return Figures(contender=contender, accounts=accounts, seconds=seconds, **(given | more))


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    """Eight accounts, as many subscriptions as share a query; every signature is checked."""
    with Simulator(accounts=8, subscriptions=50, latency_ms=0, verify=1) as running:
        yield running


# --- the whole ------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_quick_run_prints_one_line_with_every_figure() -> None:
    words = ["--quick", "--json", "--accounts", "3", "--latency-ms", "1"]
    command = [sys.executable, RUN, *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=280)
    (line,) = done.stdout.splitlines()
    answer = json.loads(line)
    assert done.returncode == 0, (answer, done.stderr[-2000:])
    assert set(answer["contenders"]) == {one.name for one in CONTENDERS if one.quick}
    for name, by_accounts in answer["contenders"].items():
        assert list(by_accounts) == ["3"], name
        for one in by_accounts.values():
            assert one.keys() >= FIGURES, name
            assert min(one[figure] for figure in FIGURES) > 0, name
            assert one["calls_per_account"] == 50, name
    suture, floor = (answer["contenders"][name]["3"] for name in ("suture", "floor-a"))
    assert answer["ratio_to_floor"] == pytest.approx(
        suture["accounts_per_s"] / floor["accounts_per_s"], rel=0.05, abs=0.001
    )
    assert 0 < suture["without_servers"]["peak_rss_mb"] < suture["peak_rss_mb"]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["--accounts", "many"], "'many' is not a whole number from 1 to 100,000"),
        (["--accounts", "100,0"], "'0' is not a whole number"),
        (["--accounts", ""], "'' is not a whole number"),
        (["--only", "steampipe"], "--only steampipe: there is no such contender, but floor-a"),
        (["--latency-ms", "-1"], "'-1' is not a time from 0 to 10,000 ms"),
        (["--latency-ms", "nan"], "'nan' is not a time"),
        (["--rounds", "1.5"], "'1.5' is not a whole number"),
        (["--out", "/nowhere"], "--out /nowhere is not a folder"),
        (["--fast"], "unrecognized arguments: --fast"),
    ],
)
def test_a_wrong_argument_is_answered_in_words(
    words: list[str], names: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        arguments(words)
    said = capsys.readouterr()
    assert ended.value.code == 2
    assert said.out == ""
    assert said.err.startswith("benchmark: ")
    assert names in said.err
    assert len(said.err.splitlines()) == 1


def test_who_scans_how_much() -> None:
    full = {(one.name, size) for one, size in chosen(arguments([]))}
    assert {size for name, size in full if name == "suture"} == {100, 1_000, 10_000}
    assert {size for name, size in full if name == "boto3"} == {100}
    assert {size for name, size in full if name == "c7n-org"} == {10}
    quick = {one.name for one, _ in chosen(arguments(["--quick"]))}
    assert quick == {"floor-a", "floor-b", "suture", "suture-engine", "boto3"}
    assert {size for name, size in full if name == "suture-azure-table"} == {100, 1_000}
    only = chosen(arguments(["--quick", "--only", "prowler", "--accounts", "2"]))
    assert [(one.name, size) for one, size in only] == [("prowler", 2)]


# --- contenders -----------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", ["floor-a", "floor-b", "boto3", "suture-engine"])
def test_a_contender_makes_the_fifty_calls_signed_right(name: str, simulator: Simulator) -> None:
    (contender,) = (one for one in CONTENDERS if one.name == name)
    found = measure(contender, job_for(contender, simulator.fleet, 5), simulator)
    assert found.failed == ""
    assert found.calls == 5 * 50
    assert found.cpu_seconds > 0
    assert simulator.stats()["wrong_signatures"] == 0
    assert simulator.stats()["verified"] >= 5 * 50


@pytest.mark.slow
@pytest.mark.parametrize(("name", "size"), [("suture-table", 3), ("suture-azure-table", 3)])
def test_the_whole_table_is_read(name: str, size: int, simulator: Simulator) -> None:
    (contender,) = (one for one in CONTENDERS if one.name == name)
    assert contender.rules == ",".join(one.id for one in RULES if one.cloud is contender.cloud)
    found = measure(contender, job_for(contender, simulator.fleet, size), simulator)
    assert found.failed == ""
    assert found.calls > 40 * size


@pytest.mark.slow
@pytest.mark.parametrize(("size", "calls"), [(5, 3 * 5), (50, 50 + 3)])
def test_azure_s_findings_are_all_found_and_cost_a_call_where_many_share_a_query(
    size: int, calls: int, simulator: Simulator
) -> None:
    """The question what may be read in each subscription, and two lists; or, after it, a count
    and two answers of up to a thousand rows."""
    (contender,) = (one for one in CONTENDERS if one.name == "suture-azure")
    job = job_for(contender, simulator.fleet, size)
    found = measure(contender, job, simulator)
    assert found.failed == ""
    assert found.findings == findings(job) > 10 * size
    signing_in_and_discovery = 2
    assert found.calls == calls + signing_in_and_discovery


READY = """input(); print('{"ready": true, "apart": []}', flush=True)"""


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("raise SystemExit(3)", "it ended early"),
        ('input(); print(\'{"ready": true, "apart": []}\', flush=True); input()', "it ended early"),
        ("import sys; sys.stdin.read()", "it took more than 1 s"),
        (f"{READY}; import sys; sys.stdin.read()", "it took more than 1 s"),
    ],
)
def test_a_contender_that_breaks_has_failed(
    program: str, why: str, simulator: Simulator, tmp_path: Path
) -> None:
    script = tmp_path / "broken.py"
    script.write_text(program)
    broken = Contender(name="broken", script=str(script), seconds=1)
    found = measure(broken, job_for(broken, simulator.fleet, 1), simulator)
    assert found.failed.startswith(why)
    assert found.as_json() == {"failed": found.failed}


JOB = Job(
    fleet={"aws": {"first_account": "100000000000", "accounts": 2, "regions": ["eu-central-1"]}},
    accounts=2,
    processes=1,
    accounts_at_once=1,
    calls_at_once=1,
    connections=1,
)
SERVED = {"requests": 100, "wrong_signatures": 0, "verified": 1}


@pytest.mark.parametrize(
    ("outcome", "served", "why"),
    [
        ({"covered": 1}, {}, "it covered 1 of 2 accounts"),
        ({"errors": ["100000000001: refused"]}, {}, "100000000001: refused"),
        ({}, {"requests": 99}, "99 calls reached the simulator, not 100"),
        ({}, {"requests": 0}, "no call reached the simulator"),
        ({}, {"wrong_signatures": 1}, "1 of 1 signatures that were checked are wrong"),
        ({"findings": 0}, {}, "it found 0 of "),
        ({"findings": None}, {}, "it found None of "),
        ({}, {}, ""),
    ],
)
def test_less_than_all_has_failed(
    outcome: dict[str, Any], served: dict[str, Any], why: str
) -> None:
    whole = {"covered": 2, "findings": findings(JOB)}
    contender = Contender(name="any", script="", judges=True)
    found = what_is_wrong(contender, JOB, Outcome(**(whole | outcome)), SERVED | served)
    assert found.startswith(why)
    assert bool(found) == bool(why)


# --- measuring ------------------------------------------------------------------------------------

BURN = "import time\nwhile time.process_time() < 0.3: pass"
TREE = """
import subprocess, sys
subprocess.run([sys.executable, "-c", sys.argv[1]])
held = bytearray(64 * 2**20)
held[::4096] = b"x" * len(held[::4096])
print("done", flush=True)
sys.stdin.read()
"""


def test_a_child_that_has_ended_counts_and_others_do_not() -> None:
    before = cpu_seconds([os.getpid()])
    with subprocess.Popen(
        [sys.executable, "-c", TREE, BURN], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        with Memory(process.pid) as memory, Memory(os.getpid(), [process.pid]) as ours:
            assert process.stdout.readline() == "done\n"
        # It burnt 0.3 s; the clock of the process table has steps of a hundredth.
        assert cpu_seconds([process.pid]) >= 0.28
        assert cpu_seconds([os.getpid()]) - before >= 0.28
        assert memory.peak_mb >= 64
        assert ours.peak_mb - ours.peak_mb_without >= 64
        process.stdin.close()
    assert cpu_seconds([process.pid]) == 0


# --- the report -----------------------------------------------------------------------------------

RESULTS = (
    figures("floor-a", 100, 1.0),
    figures("floor-a", 1_000, 8.0),
    figures("suture", 100, 2.0),
    figures("suture", 1_000, 10.0, without_servers={"cpu_seconds": 10.0, "peak_rss_mb": 70.0}),
    figures("suture-azure", 1_000, 12.5, calls=1_040, cloud="azure"),
    figures("c7n-org", 10, 12.5, cpu_seconds=22.0, calls=1290, peak_rss_mb=2085.0),
    figures("prowler", 4, 40.0, failed="it covered 3 of 4 accounts"),
)


TABLE = """
contender          accounts  accounts/s  CPU ms/account  calls/account  peak MB  suture is
floor-a                 100         100            12.0           50.0      109     0.50 x
floor-a               1,000         125            12.0           50.0      109     0.80 x
suture                  100        50.0            12.0           50.0      109
suture                1,000         100            12.0           50.0      109
  without servers                                  10.0                      70
suture-azure          1,000        80.0            12.0            1.0      109
c7n-org                  10        0.80           2,200            129    2,085      125 x
prowler                   4  failed: it covered 3 of 4 accounts
"""


def test_the_table() -> None:
    assert table(RESULTS) == TABLE.strip()


def test_the_record() -> None:
    record = as_json(RESULTS, {"cores": 2})
    assert record["ratio_to_floor"] == 0.8
    assert record["cores"] == 2
    assert record["contenders"]["prowler"] == {"4": {"failed": "it covered 3 of 4 accounts"}}
    assert record["contenders"]["c7n-org"]["10"]["suture_is_times_as_fast"] == 125
    assert "suture_is_times_as_fast" not in record["contenders"]["suture-azure"]["1000"]
    assert record["contenders"]["suture"]["1000"]["without_servers"] == {
        "cpu_ms_per_account": 10.0,
        "peak_rss_mb": 70.0,
    }


def test_azure_is_shown_and_not_compared_with_what_aws_took() -> None:
    lines = markdown(as_json(RESULTS, {})).splitlines()
    (azure,) = (line for line in lines if "Azure" in line)
    (peer,) = (line for line in lines if "c7n-org" in line)
    assert azure.endswith("| 1,000 | 80.0 | 12.0 | 1.0 | 109 |  |")
    assert peer.endswith("| 125 × |")
    azure_only = [one for one in RESULTS if one.cloud == Cloud.AZURE]
    assert ratio_to_floor(azure_only) is None
    assert ratio_to_floor(RESULTS) == 0.8


def test_a_contender_that_failed_is_never_compared() -> None:
    failed = [replace(one, failed="why") if one.contender == "suture" else one for one in RESULTS]
    assert ratio_to_floor(failed) is None
    assert suture_times(RESULTS[0], failed) is None
    assert suture_times(RESULTS[-1], RESULTS) is None


def test_the_middle_round_counts_and_one_that_failed_is_not_hidden() -> None:
    rounds = [figures("suture", 100, seconds) for seconds in (3.0, 1.0, 2.0)]
    assert median(rounds).seconds == 2.0
    assert median([*rounds, figures("suture", 100, 1.0, failed="why")]).failed == "why"


@pytest.mark.parametrize("name", ["fleet.svg", "fleet.png"])
def test_the_plot_is_the_same_for_the_same_figures(name: str, tmp_path: Path) -> None:
    once, again = tmp_path / name, tmp_path / f"again-{name}"
    plot(RESULTS, "2 cores", once)
    plot(RESULTS, "2 cores", again)
    assert once.read_bytes() == again.read_bytes()
    assert len(once.read_bytes()) > 5_000
