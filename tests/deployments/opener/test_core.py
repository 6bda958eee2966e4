"""The opener opens for a right code or an allowed request, once, and writes everything down."""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from tasks.clouds.openings import moment
from tasks.errors import CloudError

if TYPE_CHECKING:
    from tests.deployments.opener.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.attack]

OPEN = "https://gate.acme.example/open"
BOTH = pytest.mark.parametrize("cloud", ["aws", "azure"])


@pytest.fixture
def code(authenticator: Callable[..., str]) -> str:
    return authenticator()


def what_happened(site: Site) -> list[str]:
    return [entry["what"] for entry in site.journal]


# --- a person's code ----------------------------------------------------------------------------


@BOTH
def test_a_right_code_opens_the_gate_for_itself(site: Site, code: str, cloud: str) -> None:
    status, answer = site.present(code, cloud, minutes=3)
    assert (status, set(answer)) == (HTTPStatus.OK, {"expires_at"})
    until = moment(answer["expires_at"])
    assert until is not None
    assert timedelta(minutes=2) < until - datetime.now(UTC) <= timedelta(minutes=3)
    (standing,) = site.status(cloud).openings
    assert standing.id == "Person"
    assert what_happened(site) == ["code", "opening", "opened"]


@BOTH
def test_a_code_for_a_run_is_an_opening_of_its_own_that_the_run_closes(
    site: Site, code: str, cloud: str
) -> None:
    site.ask(cloud)
    assert site.present(code, cloud, remediation="run-1")[0] == HTTPStatus.OK
    assert sorted(one.by for one in site.status(cloud).openings) == ["machine", "person"]
    opening = next(entry for entry in site.journal if entry.get("by") == "code")
    assert opening["remediation"] == "run-1"
    close = OPEN.replace("/open", "/close")
    site.post("/close", request=site.sign(cloud, to=close, person=True))
    assert [one.by for one in site.status(cloud).openings] == ["machine"]
    site.post("/close", request=site.sign(cloud, to=close))
    assert not site.status(cloud).is_open


def test_a_code_opens_once(site: Site, code: str) -> None:
    assert site.present(code)[0] == HTTPStatus.OK
    site.close_everything()
    status, answer = site.present(code)
    assert status == HTTPStatus.UNAUTHORIZED
    assert "used" in answer["error"]
    assert not site.status().is_open


def test_of_sixteen_at_once_one_opens(site: Site, code: str, at_once: Any) -> None:
    openers = [site.another() for _ in range(16)]
    body = json.dumps({"code": code, **site.about()}).encode()
    found = Counter(status for status, _ in at_once(lambda: openers.pop().answer("/open", body)))
    assert found == {HTTPStatus.OK: 1, HTTPStatus.UNAUTHORIZED: 15}
    assert what_happened(site).count("opened") == 1


@pytest.mark.parametrize("steps", [-2, 2])
def test_a_drifted_code_does_not_open(
    site: Site, authenticator: Callable[..., str], steps: int
) -> None:
    now = time.time() % 30
    if now > 28:
        time.sleep(3)  # else the step changes while it is asked
    assert site.present(authenticator(steps))[0] == HTTPStatus.UNAUTHORIZED
    assert not site.status().is_open


def test_five_wrong_codes_lock_the_right_one_out_everywhere(
    site: Site, code: str, wrong_code: str
) -> None:
    for _ in range(5):
        assert site.present(wrong_code)[0] == HTTPStatus.UNAUTHORIZED
    for opener in (site.opener, site.another()):
        body = json.dumps({"code": code, **site.about()}).encode()
        status, answer = opener.answer("/open", body)
        assert status == HTTPStatus.TOO_MANY_REQUESTS
        assert "seconds" in answer["error"]
    assert not site.status().is_open
    verdicts = Counter(entry.get("verdict") for entry in site.journal if entry["what"] == "code")
    assert verdicts == {"wrong": 5, "locked": 2}


def test_a_lock_keeps_no_machine_out(site: Site, wrong_code: str) -> None:
    for _ in range(5):
        site.present(wrong_code)
    assert site.ask()[0] == HTTPStatus.OK


@pytest.mark.parametrize(
    "changes",
    [
        {"cloud": "other"},
        {"account": "1234"},
        {"account": "111122223333/../x"},
        {"source": "nobody"},
        {"minutes": 16},
        {"minutes": 0},
        {"minutes": True},
        {"minutes": "5"},
        {"request": "a.b.c"},
        {"remediation": "x" * 101},
        {"remediation": 7},
        {"remediation": "a\nb"},
    ],
)
def test_a_request_that_cannot_be_used_spends_no_code(
    site: Site, code: str, changes: dict[str, Any]
) -> None:
    assert site.present(code, **changes)[0] == HTTPStatus.BAD_REQUEST
    assert site.present(code)[0] == HTTPStatus.OK


def test_azure_opens_for_named_resources_only(site: Site, code: str) -> None:
    for resources in ([], "all", None):
        assert site.present(code, "azure", resources=resources)[0] == HTTPStatus.BAD_REQUEST
    wide = [f"/subscriptions/{site.account('azure').id}"]
    assert site.present(code, "azure", resources=wide)[0] == HTTPStatus.BAD_REQUEST
    assert not site.status("azure").is_open


def test_without_a_seed_no_codes_are_taken(site: Site, code: str) -> None:
    site.opener = site.another(seed=None)
    assert site.present(code)[0] == HTTPStatus.FORBIDDEN


def test_a_seed_that_cannot_be_read_opens_nothing(site: Site, code: str) -> None:
    def away() -> SecretStr:
        raise CloudError("the vault is away", operation="read secret")

    site.opener = site.another(seed=away)
    status, answer = site.present(code)
    assert status == HTTPStatus.BAD_GATEWAY
    assert "vault is away" in answer["error"]
    assert not site.status().is_open


# --- a signed request ---------------------------------------------------------------------------


@BOTH
def test_an_allowed_request_opens_and_is_closed_again(site: Site, cloud: str) -> None:
    status, answer = site.ask(cloud)
    assert (status, set(answer)) == (HTTPStatus.OK, {"code", "expires_at"})
    assert len(answer["code"]) >= 22  # 128 bits in base64
    assert site.status(cloud).is_open
    closing = site.sign(cloud, to=OPEN.replace("open", "close"))
    assert site.post("/close", request=closing)[0] == HTTPStatus.OK
    assert not site.status(cloud).is_open
    opening, opened, closed = site.journal
    asked = {
        "by": "request",
        "remediation": "run-1",
        "plan": "f00d",
        "minutes": 5,
        "resources": [site.finding(cloud)["resource"]],
    }
    assert asked.items() <= opening.items()
    assert opened["opening"] == closed["opening"] == opening["opening"]


def test_a_request_is_good_once_also_for_another_process(site: Site) -> None:
    request = site.sign()
    assert site.post("/open", request=request)[0] == HTTPStatus.OK
    body = json.dumps({"request": request}).encode()
    for opener in (site.opener, site.another()):
        status, answer = opener.answer("/open", body)
        assert status == HTTPStatus.UNAUTHORIZED
        assert set(answer) == {"error"}


def test_of_sixteen_replays_at_once_one_opens(site: Site, at_once: Any) -> None:
    body = json.dumps({"request": site.sign()}).encode()
    found = Counter(status for status, _ in at_once(lambda: site.opener.answer("/open", body)))
    assert found == {HTTPStatus.OK: 1, HTTPStatus.UNAUTHORIZED: 15}


def test_six_requests_at_once_all_stand(site: Site, at_once: Any) -> None:
    """IAM takes no precondition: side by side, one trust policy would overwrite another."""
    requests = [site.sign(remediation=f"run-{number}") for number in range(6)]
    found = at_once(lambda: site.post("/open", request=requests.pop()), 6)
    assert {status for status, _ in found} == {HTTPStatus.OK}
    assert len(site.status().openings) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"aud": "https://elsewhere.example/open"},
        {"aud": OPEN.replace("open", "close")},
        {"aud": None},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"exp": "soon"},
        {"exp": timedelta(hours=10)},
        {"iat": None},
        {"iat": timedelta(minutes=10), "exp": timedelta(minutes=11)},
        {"jti": None},
        {"remediation": None},
        {"account": None},
    ],
)
def test_what_is_not_signed_for_here_and_now_is_refused(
    site: Site, changes: dict[str, Any], from_now: Any
) -> None:
    status, answer = site.post("/open", request=site.forge(**from_now(changes)))
    assert (status, set(answer)) == (HTTPStatus.UNAUTHORIZED, {"error"})
    assert not site.status().is_open


def test_only_the_issuers_key_signs(site: Site, fleet: Any) -> None:
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    public = json.dumps({"kty": "oct", "k": "c2VjcmV0"})
    forged = [
        site.forge(stranger),
        site.forge("a-shared-secret-that-is-long-enough-for-hs256", algorithm="HS256"),
        jwt.encode(site.claims(), None, algorithm="none"),
        jwt.encode(site.claims(), "x" * 64, headers={"jwk": json.loads(public)}),
        site.forge()[:-8] + "AAAAAAAA",
        "a.b.c",
        "",
    ]
    for request in forged:
        status, answer = site.post("/open", request=request)
        assert (status, set(answer)) == (HTTPStatus.UNAUTHORIZED, {"error"})
    assert not site.status().is_open
    assert site.post("/open", request=site.forge())[0] == HTTPStatus.OK  # the forge itself is good


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"actions": ["iam:CreateUser"]}, 403),
        ({"actions": ["s3:PutBucketPolicy", "*"]}, 403),
        ({"actions": []}, 400),
        ({"resources": []}, 400),
        ({"resources": ["arn:aws:s3:::*"]}, 403),
        ({"resources": ["arn:aws:ec2:eu-central-1:111122223333:security-group/sg-1"]}, 403),
        ({"resources": ["r"] * 501}, 400),
        ({"minutes": 11}, 403),
        ({"minutes": 16}, 403),
        ({"minutes": True}, 403),
        ({"plan": ""}, 400),
        ({"plan": None}, 400),
        ({"source": "nobody"}, 400),
    ],
)
def test_what_the_allow_list_does_not_permit_is_refused_though_signed(
    site: Site, changes: dict[str, Any], status: int
) -> None:
    found, answer = site.ask(**changes)
    assert (found, set(answer)) == (status, {"error"})
    assert not site.status().is_open


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/open", b"not json", 400),
        ("/open", b"[]", 400),
        ("/open", b"[" * 60_000, 400),
        ("/open", b"{}", 400),
        ("/open", b'{"request": 1}', 400),
        ("/open", b"x" * 65_537, 413),
        ("/", b"{}", 404),
        ("/tick", b"{}", 404),
        ("/open/../close", b"{}", 400),
    ],
)
def test_nonsense_is_answered(site: Site, path: str, body: bytes, status: int) -> None:
    found, answer = site.opener.answer(path, body)
    assert (found, set(answer)) == (status, {"error"})


# --- closing ------------------------------------------------------------------------------------


def test_a_tick_closes_what_is_past_its_time(site: Site) -> None:
    assert site.ask("azure", minutes=5)[0] == HTTPStatus.OK
    site.opener.tick()
    assert site.status("azure").is_open
    other = site.another()  # the one that opened may be gone
    other.tick(now=time.time() + 301)
    assert not site.status("azure").is_open


def test_a_tick_forgets_requests_that_nobody_can_use_any_more(site: Site) -> None:
    used = site.sign()
    assert site.post("/open", request=used)[0] == HTTPStatus.OK
    site.store.update("request of yesterday", lambda _: ({"expires": time.time() - 1}, None))
    site.opener.tick()
    assert site.store.update("request of yesterday", lambda known: (None, known)) == {}
    assert site.post("/open", request=used)[0] == HTTPStatus.UNAUTHORIZED


def test_a_tick_finds_what_nobody_noted(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store was lost, or someone opened by hand and was killed."""
    monkeypatch.setattr(site.opener, "_stands", lambda *_: None)
    monkeypatch.setattr(
        "tasks.clouds.gate.timedelta", lambda minutes: timedelta(minutes=-minutes)
    )  # an opening whose time is over
    assert site.ask("azure")[0] == HTTPStatus.OK
    monkeypatch.undo()
    assert site.status("azure").is_open
    site.another().tick()
    assert not site.status("azure").is_open


def test_a_close_that_fails_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    assert site.ask("azure", minutes=1)[0] == HTTPStatus.OK

    def away(*_: object, **__: object) -> None:
        raise CloudError("Azure is away")

    late = time.time() + 61
    with monkeypatch.context() as patch:
        patch.setattr("deployments.opener.core.close_gate", away)
        site.opener.close_due(now=late)
    assert site.status("azure").is_open
    site.opener.close_due(now=late + 30)
    assert not site.status("azure").is_open


def test_closing_another_runs_opening_needs_its_name(site: Site) -> None:
    assert site.ask(remediation="run-1")[0] == HTTPStatus.OK
    closing = site.sign(to=OPEN.replace("open", "close"), remediation="run-2")
    assert site.post("/close", request=closing)[0] == HTTPStatus.OK
    assert site.status().is_open


# --- what is written down -----------------------------------------------------------------------


def test_what_cannot_be_written_down_is_not_done(site: Site, code: str) -> None:
    site.journal_file.mkdir()  # so that nobody can write to it
    found = [site.ask(), site.present(code)]
    site.journal_file.rmdir()
    assert [status for status, _ in found] == [HTTPStatus.BAD_GATEWAY] * 2
    assert not site.status().is_open


def test_nothing_secret_is_written_down_logged_or_answered(
    site: Site, code: str, wrong_code: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    request = site.sign("azure")
    answers = [
        site.present(wrong_code),
        site.present(code),
        site.present(code),
        site.post("/open", request=request),
        site.post("/open", request=request),
        site.present(code, "azure", resources=["/bad"]),
    ]
    machine = answers[3][1].pop("code")
    kept = [
        site.journal_file.read_text(),
        json.dumps([answer for _, answer in answers]),
        caplog.text,
        *(path.read_text() for path in (site.folder / "store").glob("*.json")),
    ]
    seed = site.settings.seed
    assert seed is not None
    secrets = (machine, request, request.rpartition(".")[2], seed().get_secret_value())
    for text in kept:
        for secret in secrets:
            assert secret not in text
        for presented in (code, wrong_code):
            assert f'"{presented}"' not in text
            assert f":{presented}" not in text
            assert f" {presented}" not in text


def test_the_journal_is_only_added_to(site: Site) -> None:
    site.ask(minutes=99)
    before = site.journal_file.read_text()
    site.ask(minutes=98)
    assert site.journal_file.read_text().startswith(before)
    assert [entry["what"] for entry in site.journal] == ["refused", "refused"]
    assert all(entry["at"] and entry["why"] for entry in site.journal)


def test_a_long_text_does_not_fill_the_journal(site: Site) -> None:
    site.ask(actions=["x" * 50_000])
    assert len(site.journal_file.read_text()) < 2_000
