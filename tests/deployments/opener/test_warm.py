"""Warm gates: opened ahead in their hours, under new codes, for what the customer listed."""

from __future__ import annotations

import json
import time as clock
from dataclasses import replace
from datetime import UTC, datetime, time, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr

from deployments.gate import close_by_hand, status_by_hand
from deployments.local.stack import fleet_env
from deployments.opener import core
from deployments.opener.warm import (
    LEAST_SECONDS,
    RENEW_SECONDS,
    SETTLE_SECONDS,
    Generation,
    WarmGate,
    code_of,
    next_generation,
    to_hand_out,
)
from tasks.clouds.openings import WARM
from tasks.clouds.propagation import Propagation
from tasks.clouds.remediator import open_session
from tasks.errors import BadInput
from tasks.model import Account, Call, Cloud, Resource, Step

if TYPE_CHECKING:
    from tests.deployments.opener.conftest import Site

KEY = SecretStr("k" * 43)
ACCOUNT = Account(Cloud.AWS, "111122223333", source="acme")
GATE = WarmGate(ACCOUNT, ("s3:PutBucketPolicy",), ("arn:aws:s3:::*",), time(8), time(18))
BOTH = pytest.mark.parametrize("cloud", ["aws", "azure"])


def at(hour: int, minute: int = 0) -> datetime:
    return datetime(2026, 11, 26, hour, minute, tzinfo=UTC)


@pytest.mark.parametrize(
    ("now", "minutes"),
    [
        (at(7, 59), 0),
        (at(8), 15),
        (at(17, 45), 15),
        (at(17, 50), 10),
        (at(17, 59), 1),
        (at(18), 0),
        (at(23), 0),
        (datetime.fromisoformat("2026-11-26T20:00:00+11:00"), 15),
    ],
)
def test_it_is_open_in_its_hours_and_no_longer_than_to_their_end(
    now: datetime, minutes: int
) -> None:
    assert GATE.minutes(now) == minutes


@pytest.mark.attack
@given(st.lists(st.integers(1, 1000), max_size=60), st.integers(0, 15))
def test_however_often_it_is_looked_at_no_renewal_is_long_or_early(
    pauses: list[int], minutes: int
) -> None:
    now, standing, codes = 1e9, (), set()
    for pause in pauses:
        now += pause
        new = next_generation(standing, minutes, now)
        if new is None:
            continue
        assert 0 < new.until - new.since <= 900
        assert all(new.since - one.since >= min(RENEW_SECONDS, minutes * 60) for one in standing)
        codes.add(code_of(KEY, ACCOUNT, new).get_secret_value())
        standing = (*standing[-1:], new)
        assert len(codes) == new.number  # each renewal has another code
        chosen = to_hand_out(standing, now)
        assert chosen is None or chosen.until - now >= LEAST_SECONDS


def test_what_is_handed_out_is_what_the_clouds_know_of() -> None:
    old = Generation(1, "a", 0, 900)
    new = Generation(2, "b", RENEW_SECONDS, RENEW_SECONDS + 900)
    assert to_hand_out((), 0) is None
    assert to_hand_out((old,), 1) is old  # nothing else is there
    assert to_hand_out((old, new), RENEW_SECONDS + 1) is old
    assert to_hand_out((old, new), RENEW_SECONDS + SETTLE_SECONDS) is new
    assert to_hand_out((old, new), RENEW_SECONDS + 900 - LEAST_SECONDS + 1) is None


@pytest.mark.attack
def test_a_code_has_192_bits_and_depends_on_all_it_should() -> None:
    first = Generation(1, "a", 0, 900)
    codes = {
        code_of(KEY, ACCOUNT, first).get_secret_value(),
        code_of(KEY, ACCOUNT, replace(first, nonce="b")).get_secret_value(),
        code_of(KEY, ACCOUNT, replace(first, number=2)).get_secret_value(),
        code_of(KEY, replace(ACCOUNT, id="1" * 12), first).get_secret_value(),
        code_of(SecretStr("l" * 43), ACCOUNT, first).get_secret_value(),
    }
    assert len(codes) == 5
    assert all(len(code) == 32 for code in codes)
    with pytest.raises(BadInput, match="fewer than 32"):
        code_of(SecretStr("short"), ACCOUNT, first)


# --- on the emulated clouds ---------------------------------------------------------------------


def warm(site: Site, cloud: str, **changes: Any) -> WarmGate:
    """Have the site's opener keep one account warm, at any hour."""
    claims = site.claims(cloud)
    gate = WarmGate(
        site.account(cloud), tuple(claims["actions"]), tuple(claims["resources"]), time(), time.max
    )
    gate = replace(gate, **changes)
    site.opener = site.another(warm=(gate,), warm_key=lambda: KEY)
    return gate


@pytest.mark.slow
@BOTH
def test_a_fix_finds_its_gate_open(site: Site, cloud: str, monkeypatch: pytest.MonkeyPatch) -> None:
    warm(site, cloud)
    site.opener.tick()
    (standing,) = site.status(cloud).openings
    assert standing.by == "warm"
    status, answer = site.ask(cloud, warm=True)
    assert (status, answer["warm"]) == (HTTPStatus.OK, True)
    assert len(site.status(cloud).openings) == 1  # nothing was opened for it
    for name, value in fleet_env(site.fleet.description).items():
        monkeypatch.setenv(name, value)
    enter(site, cloud, answer["code"])
    assert [entry["what"] for entry in site.journal] == ["opening", "opened", "handed out"]
    assert site.journal[-1]["remediation"] == "run-1"
    assert answer["code"] not in site.journal_file.read_text()


def enter(site: Site, cloud: str, code: str) -> None:
    """Come in with a code as Suture does, at once or never."""
    found, account = site.finding(cloud), site.account(cloud)
    kind = "aws.s3.bucket" if cloud == "aws" else "azure.storage.account"
    resource = Resource(Cloud(cloud), account.id, found["region"], kind, found["resource"], "", {})
    call = Call(Cloud.AWS, "s3", "PutBucketPolicy", {}, found["resource"])
    if cloud == "azure":
        call = Call(Cloud.AZURE, "2023-05-01", "PATCH", {}, found["resource"])
    step = Step(site.claims(cloud)["actions"][0], call, (), ())
    at_once = Propagation(code=0, access=0)
    open_session(
        site.inventory, account, resource, [step], SecretStr(code), propagation=at_once
    ).close()


@pytest.mark.slow
@pytest.mark.usefixtures("customer_env")
def test_the_customer_sees_and_closes_it_by_hand(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SUTURE_INVENTORY", site.fleet.description["inventory"])
    warm(site, "aws")
    site.opener.tick()
    site.ask()
    account = site.account("aws").id
    seen = status_by_hand(account, source="")["openings"]
    assert sorted(one["by"] for one in seen) == ["machine", "warm"]
    assert close_by_hand(account, source="")["closed"] == {"machine": 1, "warm": 1}
    assert not status_by_hand(account, source="")["open"]


@pytest.mark.slow
@BOTH
def test_it_is_renewed_under_a_new_code_while_the_old_one_stands(
    site: Site, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    warm(site, cloud)
    now = clock.time()
    site.opener.tick(now=now - RENEW_SECONDS)
    old = site.ask(cloud, warm=True)[1]["code"]
    site.another(warm=site.opener._settings.warm, warm_key=lambda: KEY).tick(now=now)
    standing = site.status(cloud).openings
    assert [one.by for one in standing] == ["warm", "warm"]
    assert site.ask(cloud, warm=True)[1]["code"] == old  # the clouds need not know the new one
    later = now + SETTLE_SECONDS + 1
    monkeypatch.setattr(core, "to_hand_out", lambda standing, _: to_hand_out(standing, later))
    new = site.ask(cloud, warm=True)[1]["code"]
    monkeypatch.undo()
    assert new != old
    for name, value in fleet_env(site.fleet.description).items():
        monkeypatch.setenv(name, value)
    for code in (old, new):
        enter(site, cloud, code)


@pytest.mark.slow
def test_azures_role_assignment_stays_when_the_older_opening_ends(site: Site) -> None:
    warm(site, "azure")
    now = clock.time()
    site.opener.tick(now=now - RENEW_SECONDS)
    site.opener.tick(now=now)
    site.opener.close(site.account("azure"), WARM[1])
    (standing,) = site.status("azure").openings
    assert standing.id == WARM[0]
    assert standing.resources
    site.opener.close(site.account("azure"), WARM[0])
    assert not site.status("azure").is_open
    assert not assignments(site)


@pytest.mark.slow
def test_a_process_that_dies_leaves_no_warm_gate_open(site: Site) -> None:
    warm(site, "azure")
    site.opener.tick()
    site.another().tick(now=clock.time() + 901)  # one that is not told to keep anything warm
    assert not site.status("azure").is_open
    assert not assignments(site)


def assignments(site: Site) -> list[Any]:
    """The role assignments that reach the finding's resource itself."""
    resource = site.finding("azure")["resource"].lower()
    found = site.fleet._azure.tenant.access.all()
    return [one for one in found if one.scope.lower() == resource]


@pytest.mark.slow
@BOTH
def test_it_closes_with_its_hours(site: Site, cloud: str) -> None:
    gate = warm(site, cloud)
    site.opener.tick()
    assert site.status(cloud).is_open
    now = datetime.now(UTC)
    over = replace(gate, starts=time(), ends=(now - timedelta(minutes=1)).time())
    if over.ends > now.time():
        pytest.skip("it is midnight, when the day before has other hours")
    site.opener = site.another(warm=(over,), warm_key=lambda: KEY)
    site.opener.tick(now=now.timestamp() + 901)
    assert not site.status(cloud).is_open
    assert site.ask(cloud, warm=True)[1].get("warm") is None  # and a request has its own opening


@pytest.mark.slow
@pytest.mark.attack
@pytest.mark.parametrize(
    "changes",
    [
        {"actions": ["iam:CreateUser"]},
        {"actions": ["s3:PutBucketPolicy", "s3:PutBucketVersioning"]},
        {"resources": ["arn:aws:s3:::another"]},
        {"account": "999999999999"},
        {"source": "nobody"},
        {"warm": "yes"},
        {"warm": 1},
    ],
)
def test_its_code_is_for_what_is_listed_only(site: Site, changes: dict[str, Any]) -> None:
    warm(site, "aws", resources=(site.finding("aws")["resource"],))
    site.opener = site.another(warm=site.opener._settings.warm, warm_key=lambda: KEY, allow=())
    site.opener.tick()
    good, answer = site.ask(warm=True)
    assert good == HTTPStatus.OK
    status, refused = site.ask(**{"warm": True, **changes})
    assert status != HTTPStatus.OK
    assert answer["code"] not in json.dumps(refused)


@pytest.mark.slow
@pytest.mark.attack
def test_nothing_that_is_kept_holds_its_code(site: Site) -> None:
    warm(site, "aws")
    site.opener.tick()
    code = site.ask(warm=True)[1]["code"]
    kept = site.journal_file.read_text()
    kept += "".join(path.read_text() for path in (site.folder / "store").glob("*.json"))
    assert "nonce" in kept
    for secret in (code, KEY.get_secret_value()):
        assert secret not in kept


@pytest.mark.slow
def test_who_does_not_ask_for_it_gets_an_opening_of_its_own(site: Site) -> None:
    warm(site, "aws")
    site.opener.tick()
    assert site.ask()[1].get("warm") is None
    assert sorted(one.by for one in site.status().openings) == ["machine", "warm"]


@pytest.mark.slow
def test_a_key_that_is_away_keeps_nothing_open(site: Site) -> None:
    def away() -> SecretStr:
        raise BadInput("warm.key", "is away.")

    warm(site, "aws")
    site.opener = site.another(warm=site.opener._settings.warm, warm_key=away)
    site.opener.tick()
    assert not site.status().is_open
    assert "is away" in site.journal[-1]["why"]
