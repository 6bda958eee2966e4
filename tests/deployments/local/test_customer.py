"""The emulated customer grants what Suture's issuer signed, and nothing else."""

from __future__ import annotations

import json
import re
import ssl
import stat
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import jwt
import pyotp
import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from pydantic import SecretStr

from deployments.gate import open_by_opener
from deployments.local.customer import MOST_REQUEST, EmulatedCustomer
from deployments.local.fleet import Fleet
from tasks.clouds.gate import close_gate, gate_status
from tasks.clouds.issuer import assertion
from tasks.clouds.token_request import release, request_code
from tasks.errors import CloudError, GateRefused
from tasks.inventory import Inventory, Issuer, load_inventory
from tasks.model import Account, Cloud

pytestmark = pytest.mark.slow


@dataclass
class Setting:
    """A fleet with a customer of our own beside the fleet's, and someone who asks."""

    fleet: Fleet
    inventory: Inventory
    customer: EmulatedCustomer
    http: httpx.Client
    granted: bool = False

    @property
    def issuer(self) -> Issuer:
        assert self.inventory.issuer is not None
        return self.inventory.issuer

    def finding(self, cloud: str) -> dict[str, str]:
        found: list[dict[str, str]] = self.fleet.truth["findings"]
        return next(one for one in found if one["cloud"] == cloud)

    def account(self, cloud: str) -> Account:
        sources = self.inventory.aws if cloud == "aws" else self.inventory.azure
        return Account(Cloud(cloud), self.finding(cloud)["account"], source=sources[0].name)

    def claims(self, cloud: str = "aws", **changes: Any) -> dict[str, Any]:
        account = self.account(cloud)
        return {
            "cloud": cloud,
            "source": account.source,
            "account": account.id,
            "remediation": "run-1",
            "plan": "f00d",
            "resources": [self.finding(cloud)["resource"]],
            "actions": ["s3:PutBucketPolicy"],
            "minutes": 5,
            **changes,
        }

    def sign(self, audience: str = "", **changes: Any) -> str:
        to = audience or self.customer.url
        return assertion(
            self.issuer, "suture", to, claims=self.claims(**changes)
        ).get_secret_value()

    def post(self, request: str, address: str = "") -> httpx.Response:
        answer = self.http.post(address or self.customer.url, json={"request": request})
        self.granted = self.granted or answer.is_success
        return answer

    def is_open(self, cloud: str = "aws") -> bool:
        account = self.account(cloud)
        status = gate_status(self.inventory, account, customer=self.customer.credentials(account))
        return status.is_open


@pytest.fixture(scope="module")
def setting(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Setting]:
    folder = tmp_path_factory.mktemp("fleet")
    with Fleet(aws=2, azure=2, seed=5, data_dir=folder, failing=False) as fleet:
        told = fleet.description
        inventory = load_inventory(told["inventory"])
        with (
            EmulatedCustomer(
                inventory,
                aws_credentials=told["aws"]["customer"],
                azure_credentials=told["azure"]["customer"],
                ca=fleet._ca,
                data_dir=tmp_path_factory.mktemp("customer"),
            ) as customer,
            httpx.Client(verify=ssl.create_default_context(cafile=told["ca_file"])) as http,
        ):
            yield Setting(fleet, inventory, customer, http)


@pytest.fixture(autouse=True)
def closed_afterwards(setting: Setting) -> Iterator[None]:
    setting.granted = False
    yield
    for cloud in ("aws", "azure") if setting.granted else ():
        closing = setting.customer.close_url
        request = setting.sign(closing, cloud=cloud)
        assert setting.post(request, closing).status_code == 200
        assert not setting.is_open(cloud)


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_a_person_opens_with_the_authenticators_code_and_nothing_else(
    setting: Setting, cloud: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As `suture gate open --opener` does: without the customer's keys, and without a seed."""
    monkeypatch.setenv("SUTURE_INVENTORY", setting.fleet.description["inventory"])
    account, finding = setting.account(cloud), setting.finding(cloud)
    fleet_seed = Path(setting.fleet.description["customer_seed_file"]).read_text()
    shift = 0 if cloud == "aws" else 30  # a code is good once: Azure takes the next
    code = SecretStr(pyotp.TOTP(fleet_seed).at(int(time.time()) + shift))
    ask = partial(
        open_by_opener,
        account.id,
        minutes=3,
        runs=[],
        resources=[finding["resource"]],
        source="",
        code=code,
    )
    told = ask()
    assert code.get_secret_value() not in str(told)
    status = gate_status(setting.inventory, account, customer=setting.customer.credentials(account))
    assert [one.by for one in status.openings] == ["person"]
    with pytest.raises(GateRefused, match="has been used") as caught:
        ask()
    assert code.get_secret_value() not in str(caught.value)
    close_gate(setting.inventory, account, customer=setting.customer.credentials(account))


@pytest.mark.parametrize("cloud", ["aws", "azure"])
def test_suture_asks_and_is_let_in_until_it_is_done(setting: Setting, cloud: str) -> None:
    account, finding = setting.account(cloud), setting.finding(cloud)
    opened = request_code(
        setting.inventory,
        account,
        remediation="run-1",
        plan="f00d",
        resources=[finding["resource"]],
        actions=["s3:PutBucketPolicy", "microsoft.storage/STORAGEACCOUNTS/write"],
        minutes=5,
    )
    left = opened.expires_at - datetime.now(UTC)
    assert timedelta(minutes=4) < left <= timedelta(minutes=5)
    assert setting.is_open(cloud)
    release(setting.inventory, account, remediation="run-1")
    assert not setting.is_open(cloud)


def test_a_request_is_good_once(setting: Setting) -> None:
    request = setting.sign()
    assert setting.post(request).status_code == 200
    again = setting.post(request)
    assert again.status_code == 401
    assert "code" not in again.json()


def test_a_request_is_good_for_one_address(setting: Setting) -> None:
    for audience in ("https://elsewhere.example/open", setting.customer.close_url):
        assert setting.post(setting.sign(audience)).status_code == 401
    assert not setting.is_open()


def by_hand(setting: Setting, key: Any, **changes: Any) -> str:
    """A request signed by someone, with any of the standard claims changed; None leaves it out."""
    now = int(time.time())
    claims = {
        **setting.claims(),
        "iss": setting.issuer.url,
        "aud": setting.customer.url,
        "iat": now,
        "exp": now + 60,
        "jti": str(uuid.uuid4()),
        **changes,
    }
    kept = {name: value for name, value in claims.items() if value is not None}
    return jwt.encode(kept, key, algorithm="RS256", headers={"kid": setting.issuer.key_id})


def own_key(setting: Setting) -> str:
    return Path(setting.issuer.key_file).read_text()


@pytest.mark.parametrize(
    "changes",
    [
        {"iss": "https://elsewhere.example"},
        {"exp": 1_000_000_000},
        {"exp": None},
        {"jti": None},
        {"aud": None},
        {"remediation": None},
        {"exp": timedelta(hours=1)},
        {"iat": timedelta(minutes=10), "exp": timedelta(minutes=11)},
    ],
)
def test_a_request_needs_issuer_time_and_name(
    setting: Setting, changes: dict[str, Any], from_now: Any
) -> None:
    request = by_hand(setting, own_key(setting), **from_now(changes))
    assert setting.post(request).status_code == 401
    assert not setting.is_open()


def test_only_sutures_own_key_signs(setting: Setting) -> None:
    assert setting.post(by_hand(setting, own_key(setting))).status_code == 200
    stranger = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    assert setting.post(by_hand(setting, stranger)).status_code == 401
    unsigned = jwt.encode(setting.claims(), None, algorithm="none")
    assert setting.post(unsigned).status_code == 401


@pytest.mark.parametrize(
    ("changes", "status", "said"),
    [
        ({"actions": ["iam:CreateUser"]}, 403, "iam:CreateUser"),
        ({"actions": ["s3:PutBucketPolicy", "*"]}, 403, "\\*"),
        ({"actions": []}, 400, "actions"),
        ({"actions": "s3:PutBucketPolicy"}, 400, "actions"),
        ({"minutes": 16}, 403, "minutes"),
        ({"minutes": 0}, 403, "minutes"),
        ({"minutes": "5"}, 403, "minutes"),
        ({"resources": []}, 400, "resources"),
        ({"cloud": "other"}, 400, "cloud"),
        ({"source": "nobody"}, 400, "nobody"),
    ],
)
def test_what_is_not_allowed_is_refused_in_words(
    setting: Setting, changes: dict[str, Any], status: int, said: str
) -> None:
    claims = {**setting.claims(), **changes}
    request = assertion(setting.issuer, "suture", setting.customer.url, claims=claims)
    answer = setting.post(request.get_secret_value())
    assert answer.status_code == status
    assert re.search(said, answer.json()["error"])
    assert not setting.is_open()


def test_a_whole_subscription_is_not_opened(setting: Setting) -> None:
    wide = f"/subscriptions/{setting.account('azure').id}"
    with pytest.raises(GateRefused, match="no resource of this subscription"):
        request_code(
            setting.inventory,
            setting.account("azure"),
            remediation="run-1",
            plan="p",
            resources=[wide],
            actions=["s3:PutBucketPolicy"],
        )


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"not json", 400),
        (b"[]", 400),
        (b'{"request": 1}', 400),
        (json.dumps({"request": "a.b.c"}).encode(), 401),
        (b"x" * (MOST_REQUEST + 1), 413),
    ],
)
def test_nonsense_is_answered(setting: Setting, body: bytes, status: int) -> None:
    answer = setting.http.post(setting.customer.url, content=body)
    assert answer.status_code == status
    assert set(answer.json()) == {"error"}


def test_there_is_nothing_else(setting: Setting) -> None:
    elsewhere = setting.customer.url.replace("/open", "/")
    assert setting.post("x", elsewhere).status_code == 404


def test_the_clouds_refusal_is_the_customers_trouble(setting: Setting) -> None:
    account = Account(Cloud.AWS, "999999999999", source=setting.account("aws").source)
    with pytest.raises(CloudError):
        request_code(
            setting.inventory,
            account,
            remediation="run-1",
            plan="p",
            resources=["arn:aws:s3:::b"],
            actions=["s3:PutBucketPolicy"],
        )


def test_the_seed_is_the_customers_alone_and_stays(setting: Setting, tmp_path: Path) -> None:
    path = setting.customer.seed_file
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    seed = path.read_text()
    assert len(pyotp.TOTP(seed).now()) == 6
    again = EmulatedCustomer(setting.inventory, ca=setting.fleet._ca, data_dir=path.parent)
    again.stop()
    assert path.read_text() == seed
    other = EmulatedCustomer(setting.inventory, ca=setting.fleet._ca, data_dir=tmp_path)
    other.stop()
    assert other.seed_file.read_text() != seed


def test_an_azure_gate_is_closed_when_the_customer_goes(setting: Setting, tmp_path: Path) -> None:
    told = setting.fleet.description
    going = EmulatedCustomer(
        setting.inventory,
        azure_credentials=told["azure"]["customer"],
        ca=setting.fleet._ca,
        data_dir=tmp_path,
    )
    with going:
        request = setting.sign(going.url, cloud="azure")
        assert setting.post(request, going.url).status_code == 200
        assert setting.is_open("azure")
    assert not setting.is_open("azure")
