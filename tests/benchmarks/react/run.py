"""The react benchmark: from a bad change that a cloud tells of to its verified fix, on both clouds.

    make benchmark-react                        20 s at 1 and 10 events a second, 3 s at 100;
                                                writes react.json beside
    make benchmark-react ARGS="--quick --json"  under a minute, one JSON line

The embedded default, with warm gates and emulated clouds that add 20 ms to every call. A change is
made with the customer's own credentials; the clock runs from the answer to that call, a little
before its event is in the queue, to the moment at which the fix is recorded as verified.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import boto3
import custodian
import httpx
import psycopg
from react_report import markdown

from deployments.local.prefect_api import PrefectApi
from deployments.local.stack import Stack
from tasks.warehouse.database import connect

HERE = Path(__file__).parent
LATENCY = 0.02
PROPAGATION = 3.0  # seconds until the emulated clouds know of an opening
COLD, CUSTODIAN = 10.0, 11  # seconds without warm gates; changes that Custodian is given
RATES = {1: 20.0, 10: 20.0, 100: 3.0}  # events a second: for so many seconds
QUICK = {1: 3.0, 10: 2.0, 100: 0.4}
SUBSCRIPTIONS = 7  # two that fail; five are read 24 times a second each, and ARM allows 25
SECONDS_APART = 3.0  # between two changes of a resource: none is made bad while it is fixed
PATIENCE, QUICK_PATIENCE = 300.0, 20.0  # seconds after the last change, until what is left is lost
AWS_RULE, AZURE_RULE = "aws_ec2_security_group_ssh_not_open", "azure_storage_account_https_only"
POLICIES = f"""\
suture: 1
policies:
  - name: react
    match: {{rule: [{AWS_RULE}, {AZURE_RULE}]}}
    mode: automatic
    warm_gate: true
    most_runs: 1000
    escalate: {{after: 1000, within: 1h}}
"""
STORAGE_API = "2023-05-01"


@dataclass(frozen=True, slots=True)
class Breakable:
    """One resource, and how somebody makes it bad."""

    id: str
    spoil: Callable[[], None]
    account: str = ""
    keys: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Timing:
    """What came of the changes of one cloud at one rate. Times are in seconds."""

    median_s: float | None
    p95_s: float | None
    p99_s: float | None
    events: int
    lost: int
    duplicated: int
    caught_up_s: float

    def json(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in self.__slots__}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a few events of each rate")
    parser.add_argument("--json", action="store_true", help="one JSON line, nothing else")
    parser.add_argument("--rates", type=int, nargs="+", help="only these, for two seconds each")
    parser.add_argument("--record", action="store_true", help="write react.json in any case")
    parser.add_argument("--listeners", type=int, default=1, help="processes that react")
    given = parser.parse_args()
    rates = QUICK if given.quick else RATES
    if given.rates:
        rates = dict.fromkeys(given.rates, 2.0)
    patience = QUICK_PATIENCE if given.quick else PATIENCE
    say: Callable[[str], None] = (lambda _: None) if given.json else _say
    whole = given.record or not (given.quick or given.rates)
    told: dict[str, dict[str, Any]] = {}
    most = int(max(rate * seconds for rate, seconds in rates.items()))
    with _scanned(say, most) as stack:
        groups, storage = _groups(stack, most), _storage(stack)
        of_one = [one for one in groups if one.account == groups[0].account][:CUSTODIAN]
        beside = custodian.measure(stack.fleet, of_one) if whole else None
        _listen(stack, given.listeners)
        for cloud, found in (("aws", groups), ("azure", storage)):
            for rate, seconds in rates.items():
                timing = _measure(found, rate, seconds, patience)
                told.setdefault(cloud, {})[str(rate)] = timing.json()
                say(_line(cloud, str(rate), timing))
            if whole:
                with _cold(stack):
                    timing = _measure(found, 1, COLD, patience)
                told[cloud]["1, gate not warm"] = timing.json()
                say(_line(cloud, "1 cold", timing))
        if beside:
            told["custodian"] = beside
            say(f"Cloud Custodian's handler: {beside}")
    if whole:
        (HERE / "react.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        say(markdown(told))
    if given.json:
        sys.stdout.write(json.dumps(told) + "\n")
    timed = [one for cloud in ("aws", "azure") for one in told[cloud].values()]
    return 1 if any(one["lost"] for one in timed) else 0


@contextmanager
def _scanned(say: Callable[[str], None], storage_accounts: int) -> Iterator[Stack]:
    """The embedded default with two rules in force, scanned once."""
    os.environ["SUTURE_RULES"] = f"{AWS_RULE},{AZURE_RULE}"
    with Stack(
        aws=5,
        azure=SUBSCRIPTIONS,
        seed=7,
        latency=LATENCY,
        propagation_seconds=PROPAGATION,
        warm_gates=True,
        plain_http=-(-storage_accounts // SUBSCRIPTIONS),
        say=say,
    ) as stack:
        policies = stack.dir / "react.yaml"
        policies.write_text(POLICIES, encoding="utf-8")
        stack.env["SUTURE_POLICIES"] = str(policies)
        os.environ |= {k: v for k, v in stack.env.items() if k.startswith(("SUTURE_", "PREFECT_"))}
        api = PrefectApi(stack.api_url)
        sound = sorted({one["account"] for one in _truth(stack)})  # the others make a scan wait
        scan = api.start("scan-fleet/nightly", {"hand_to_triage": False, "accounts": sound})
        api.wait([scan], seconds=120)
        yield stack


def _listen(stack: Stack, listeners: int) -> None:
    for number in range(listeners):
        stack.child(f"react-{number}", "react")
    _wait_for_listeners(listeners)
    _wait_until_quiet()


@contextmanager
def _cold(stack: Stack) -> Iterator[None]:
    """As if no gate were kept open ahead: each run has one opened for itself."""
    policies = stack.dir / "react.yaml"
    policies.write_text(POLICIES.replace("warm_gate: true", "warm_gate: false"), encoding="utf-8")
    yield
    policies.write_text(POLICIES, encoding="utf-8")


def _wait_for_listeners(count: int) -> None:
    deadline = time.monotonic() + 60
    with connect() as warehouse:
        while warehouse.execute("SELECT count(*) FROM listeners").fetchone() != (count,):
            assert time.monotonic() < deadline, "no listener began"
            time.sleep(0.1)


def _wait_until_quiet() -> None:
    """What was made ready has its events, too."""
    deadline = time.monotonic() + 120
    with connect() as warehouse:
        seen = -1
        while True:
            time.sleep(1)
            row = warehouse.execute(
                "SELECT count(*), count(*) FILTER (WHERE state = 'pending') FROM event_targets"
            ).fetchone()
            if row == (seen, 0):
                return
            assert row is not None
            assert time.monotonic() < deadline, "the listener is not done with what was made ready"
            seen = row[0]


def _groups(stack: Stack, count: int) -> list[Breakable]:
    """Security groups that nothing else uses, an account of the organization after another.

    In all of its accounts: of one EC2 allows 5 writes a second, and 20 reads of each sort.
    """
    aws = stack.fleet["aws"]
    own = {"endpoint_url": aws["endpoint"], "region_name": aws["regions"][0]}
    keys = aws["customer"]
    sts = boto3.client(
        "sts",
        aws_access_key_id=keys["access_key_id"],
        aws_secret_access_key=keys["secret_access_key"],
        **own,
    )
    found: list[list[Breakable]] = []
    accounts = _accounts("aws", leave_out=aws["organization"]["management_account"])
    for account in accounts:
        assumed = sts.assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/{aws['admin_role']}", RoleSessionName="benchmark"
        )["Credentials"]
        ec2 = boto3.client(
            "ec2",
            aws_access_key_id=assumed["AccessKeyId"],
            aws_secret_access_key=assumed["SecretAccessKey"],
            aws_session_token=assumed["SessionToken"],
            **own,
        )
        here = []
        for number in range(-(-count // len(accounts))):
            name = f"benchmark-{number}"
            group = ec2.create_security_group(GroupName=name, Description=name)["GroupId"]
            here.append(Breakable(group, _opens(ec2, group), account, assumed))
        found.append(here)
    return [one for turn in zip(*found, strict=True) for one in turn]


def _opens(ec2: Any, group: str) -> Callable[[], None]:
    everybody = [{"CidrIp": "0.0.0.0/0"}]
    rule = {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": everybody}
    return lambda: ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])


def _storage(stack: Stack) -> list[Breakable]:
    """The storage accounts that take only HTTPS after their first fix, by turns of subscriptions.

    Planted ones: the gates that the customer keeps warm on Azure are for named resources.
    """
    azure = stack.fleet["azure"]
    trust = {"verify": stack.fleet["ca_file"], "trust_env": False}
    customer = azure["customer"]
    token = httpx.post(
        f"{azure['authority']}/{azure['tenant']}/oauth2/v2.0/token",
        data={
            "grant_type": "client_credentials",
            "client_id": customer["client_id"],
            "client_secret": customer["client_secret"],
            "scope": f"{azure['audience'].rstrip('/')}/.default",
        },
        **trust,
    ).json()["access_token"]
    http = httpx.Client(
        base_url=azure["resource_manager"], headers={"Authorization": f"Bearer {token}"}, **trust
    )
    planted = {one["resource"].lower() for one in _truth(stack)}
    with connect() as warehouse:
        rows = warehouse.execute(
            "SELECT account, id FROM resources "
            "WHERE kind = 'azure.storage.account' AND lower(id) = ANY(%s) "
            "ORDER BY row_number() OVER (PARTITION BY account ORDER BY id), account",
            (list(planted),),
        ).fetchall()

    def spoiler(identity: str) -> Callable[[], None]:
        body = {"properties": {"supportsHttpsTrafficOnly": False}}
        address = f"{identity}?api-version={STORAGE_API}"

        def spoil() -> None:
            http.patch(address, json=body).raise_for_status()

        return spoil

    return [Breakable(identity, spoiler(identity), account) for account, identity in rows]


def _truth(stack: Stack) -> list[dict[str, str]]:
    with open(stack.fleet["truth"], encoding="utf-8") as file:
        told: list[dict[str, str]] = json.load(file)["findings"]
    return told


def _accounts(cloud: str, *, leave_out: str) -> list[str]:
    with connect() as warehouse:
        rows = warehouse.execute(
            "SELECT id FROM accounts WHERE cloud = %s AND last_outcome = 'covered' AND id <> %s "
            "ORDER BY id",
            (cloud, leave_out),
        )
        return [account for (account,) in rows]


def _measure(found: Sequence[Breakable], rate: int, seconds: float, patience: float) -> Timing:
    """Make so many changes a second, one resource after another, and wait for their fixes.

    Where there are too few resources for that rate each is changed once.
    """
    count = max(1, round(rate * seconds))
    if len(found) < rate * SECONDS_APART:
        count = min(count, len(found))
    chosen = [found[number % len(found)] for number in range(count)]
    made: list[tuple[str, datetime]] = []
    began = time.monotonic()

    def change(number: int, one: Breakable) -> None:
        time.sleep(max(0.0, began + number / rate - time.monotonic()))
        one.spoil()
        made.append((one.id, datetime.now(UTC)))

    start = datetime.now(UTC)
    with ThreadPoolExecutor(max_workers=16) as pool:
        list(pool.map(change, range(count), chosen))
    last = time.monotonic()
    with connect() as warehouse:
        while True:
            fixes = _fixes(warehouse, start)
            seen = [_fixed(fixes, one, at) for one, at in made]
            left = sum(one is None for one in seen)
            if not (left or _waits(warehouse)) or time.monotonic() - last > patience:
                break
            time.sleep(0.25)
    taken = sorted(
        (one - at).total_seconds() for one, (_, at) in zip(seen, made, strict=True) if one
    )
    changes = {one: sum(name == one for name, _ in made) for one, _ in made}
    return Timing(
        *(_share(taken, share) for share in (0.5, 0.95, 0.99)),
        events=count,
        lost=left,
        duplicated=sum(max(0, len(fixes.get(one, ())) - n) for one, n in changes.items()),
        caught_up_s=round(time.monotonic() - last, 2),
    )


def _waits(warehouse: psycopg.Connection) -> bool:
    """Whether there is an event that is not dealt with."""
    row = warehouse.execute(
        "SELECT EXISTS (SELECT FROM event_targets WHERE state = 'pending')"
    ).fetchone()
    return row == (True,)


def _fixes(warehouse: psycopg.Connection, since: datetime) -> dict[str, list[datetime]]:
    """When fixes were verified since, by the id of their resource."""
    found: dict[str, list[datetime]] = {}
    for resource, at in warehouse.execute(
        "SELECT f.resource, r.finished_at FROM remediations r "
        "JOIN findings f ON f.id = r.finding_id "
        "WHERE r.state = 'remediated' AND r.finished_at >= %s ORDER BY r.finished_at",
        (since,),
    ):
        found.setdefault(resource.rpartition("security-group/")[2], []).append(at)
    return found


def _fixed(fixes: dict[str, list[datetime]], resource: str, since: datetime) -> datetime | None:
    return next((at for at in fixes.get(resource, ()) if at >= since), None)


def _share(taken: Sequence[float], share: float) -> float | None:
    if not taken:
        return None
    if share == 0.5:
        return round(statistics.median(taken), 2)
    return round(taken[min(len(taken) - 1, int(len(taken) * share))], 2)


def _line(cloud: str, rate: str, timing: Timing) -> str:
    return (
        f"{cloud:6}{rate:>7}/s  {timing.events:4} changes  median {timing.median_s} s  "
        f"p95 {timing.p95_s} s  p99 {timing.p99_s} s  lost {timing.lost}  "
        f"duplicated {timing.duplicated}  caught up {timing.caught_up_s} s after the last"
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
