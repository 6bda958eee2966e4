"""The emulated clouds and the customer who owns them, as one fleet any tool can be pointed at."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import TracebackType
from typing import Any

import trustme
from ruamel.yaml import YAML

from deployments.local.aws.server import EmulatedAws
from deployments.local.azure.server import EmulatedAzure
from deployments.local.customer import EmulatedCustomer
from deployments.opener.warm import WarmGate
from tasks.clouds.issuer import generate_key
from tasks.garbage import collect_rarely
from tasks.inventory import load_inventory
from tasks.model import Account, Cloud
from tasks.rules import RULES, rules_of

ISSUER_KEY_ID = "suture-local"
WARM_HOURS = 10

# What the truth is about: the findings of these rules were planted. By others a scan finds what
# such resources have that nobody thought of.
PLANTED = (
    *("aws_ec2_security_group_*_not_open", "aws_ec2_ebs_encrypted_by_default"),
    *("aws_s3_bucket_public_access_blocked", "aws_s3_bucket_versioning_enabled"),
    *("aws_s3_bucket_tls_only", "aws_iam_password_policy_length"),
    "azure_network_security_group_*_not_open",
    *("azure_storage_account_https_only", "azure_storage_account_public_blob_access_off"),
    "azure_storage_account_minimum_tls",
)


class Fleet:
    """An AWS organization, an Azure tenant, and the customer's own token endpoint.

    ``aws`` and ``azure`` are how many member accounts and subscriptions there are; the same
    ``seed`` plants the same resources. ``latency`` is added to every call, in seconds.
    ``propagation_seconds`` is how long trust policies, federated credentials and role assignments
    take to be known, and to be forgotten. Events come ``event_delay`` seconds after what they tell
    of, the share ``event_duplicates`` twice, and the share ``event_reordering`` up to a second
    later still. ``warm_gates``: the customer keeps all gates open ahead. ``plain_http`` storage
    accounts more in each subscription take plain HTTP. Use it as a context manager.
    ``description`` is what `suture local --json` prints; the file it names under "truth" lists what
    a scan must find.
    """

    def __init__(
        self,
        *,
        aws: int,
        azure: int,
        seed: int,
        data_dir: Path,
        failing: bool = True,
        latency: float = 0.0,
        propagation_seconds: float = 0.0,
        event_delay: float = 0.0,
        event_duplicates: float = 0.0,
        event_reordering: float = 0.0,
        warm_gates: bool = False,
        plain_http: int = 0,
    ) -> None:
        self.data_dir = data_dir
        self.seed = seed
        data_dir.mkdir(parents=True, exist_ok=True)
        self._key_file = data_dir / "issuer.pem"
        self._ca = trustme.CA(organization_name="Emulated clouds")
        events: dict[str, Any] = {
            "event_delay": event_delay,
            "event_duplicates": event_duplicates,
            "event_reordering": event_reordering,
        }
        self._aws = EmulatedAws(
            accounts=aws,
            seed=seed,
            failing=failing,
            latency=latency,
            propagation_seconds=propagation_seconds,
            **events,
        )
        self._azure = EmulatedAzure(
            subscriptions=azure,
            seed=seed,
            data_dir=data_dir,
            failing=failing,
            issuer_public_key_pem=generate_key(self._key_file),
            issuer_key_id=ISSUER_KEY_ID,
            ca=self._ca,
            rbac_delay=propagation_seconds,
            federation_delay=propagation_seconds,
            latency=latency,
            plain_http=plain_http,
            **events,
        )
        self._warm_gates = warm_gates
        self.description: dict[str, Any] = {}
        self._open = ExitStack()

    def __enter__(self) -> Fleet:
        for cloud in (self._aws, self._azure):
            self._open.callback(cloud.stop)
            cloud.start()
        self.description = {
            "aws": self._aws.description,
            "azure": self._azure.description,
            "issuer": {
                "url": self._azure.issuer_url,
                "key_file": str(self._key_file),
                "key_id": ISSUER_KEY_ID,
            },
            "ca_file": str(self._azure.ca_file),
            "seed": self.seed,
            "truth": str(self.data_dir / "truth.json"),
            "inventory": str(self.data_dir / "inventory.yaml"),
        }
        self._write_truth()
        self._write_inventory()  # the customer reads it to know whom to trust
        self._start_customer()
        self._write_inventory()  # and now it can say where the token endpoint is
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    @property
    def truth(self) -> dict[str, Any]:
        """What was planted: the findings of these rules that a full scan must report, no more and
        no less, and the accounts that fail.
        """
        return {
            "findings": [*self._aws.truth, *self._azure.truth],
            "failing": {**self._aws.failing, **self._azure.failing},
            "rules": [one.id for one in rules_of(PLANTED)],
        }

    def _start_customer(self) -> None:
        customer = EmulatedCustomer(
            load_inventory(self.description["inventory"]),
            aws_credentials=self.description["aws"]["customer"],
            azure_credentials=self.description["azure"]["customer"],
            ca=self._ca,
            data_dir=self.data_dir,
            warm=self._gates_to_keep_warm() if self._warm_gates else (),
        )
        self._open.callback(customer.stop)
        customer.start()
        self.description["token_endpoint"] = {"url": customer.url}
        self.description["customer_seed_file"] = str(customer.seed_file)

    def _gates_to_keep_warm(self) -> list[WarmGate]:
        """Those of every account that holds a finding, for all that a fix may do there; on Azure
        for the resources that fail.
        """
        now = datetime.now(UTC)
        starts = max(now - timedelta(hours=1), now.replace(hour=0, minute=0)).time()
        ends = min(now + timedelta(hours=WARM_HOURS), now.replace(hour=23, minute=59)).time()
        sources = {one: self._source_name(one) for one in Cloud}
        writes = {
            cloud: tuple(
                sorted({one for rule in RULES if rule.cloud is cloud for one in rule.writes})
            )
            for cloud in Cloud
        }
        failing: dict[tuple[Cloud, str], set[str]] = {}
        for found in self.truth["findings"]:
            place = (Cloud(found["cloud"]), found["account"])
            failing.setdefault(place, set()).add(found["resource"])
        return [
            WarmGate(
                Account(cloud, account, source=sources[cloud]),
                writes[cloud],
                ("*",) if cloud is Cloud.AWS else tuple(sorted(resources)),
                starts,
                ends,
            )
            for (cloud, account), resources in failing.items()
        ]

    def _source_name(self, cloud: Cloud) -> str:
        (source,) = inventory_of(self.description)[cloud.value]
        return str(source["name"])

    def _write_truth(self) -> None:
        Path(self.description["truth"]).write_text(json.dumps(self.truth, indent=1))

    def _write_inventory(self) -> None:
        with Path(self.description["inventory"]).open("w", encoding="utf-8") as file:
            YAML().dump(inventory_of(self.description), file)


def inventory_of(fleet: dict[str, Any]) -> dict[str, Any]:
    """The inventory of an emulated fleet: the same file a team writes for real clouds."""
    aws, azure = fleet["aws"], fleet["azure"]
    ca_file = fleet["ca_file"]
    token = (
        {"token_endpoint": fleet["token_endpoint"]["url"], "token_endpoint_ca_file": ca_file}
        if "token_endpoint" in fleet
        else {}
    )
    return {
        "suture": 1,
        "aws": [
            {
                "name": "emulated-organization",
                "organization": True,
                "management_account": aws["organization"]["management_account"],
                "discovery_role": aws["discovery_role"],
                "regions": list(aws["regions"]),
                "scanner_role": aws["scanner_role"],
                "remediator_role": aws["remediator_role"],
                "external_id": aws["external_id"],
                "hub_principal": aws["hub"]["arn"],
                "endpoint": aws["endpoint"],
                "event_queue": aws["event_queue"],
                "event_dead_letter_queue": aws["event_dead_letter_queue"],
                "credentials": {
                    "access_key_id_env": "SUTURE_HUB_ACCESS_KEY_ID",
                    "secret_access_key_env": "SUTURE_HUB_SECRET_ACCESS_KEY",
                },
                **token,
            }
        ],
        "azure": [
            {
                "name": "emulated-tenant",
                "tenant": azure["tenant"],
                "client_id": azure["scanner"]["client_id"],
                "client_secret_env": "SUTURE_AZURE_CLIENT_SECRET",
                "authority": azure["authority"],
                "resource_manager": azure["resource_manager"],
                "audience": azure["audience"],
                "ca_file": ca_file,
                "remediator_client_id": azure["remediator"]["client_id"],
                "remediator_identity": azure["remediator"]["resource_id"],
                "remediator_role": azure["remediator_role_definition_id"],
                "gate_id": azure["gate_id"],
                "event_queue": azure["event_queue"],
                "event_dead_letter_queue": azure["event_dead_letter_queue"],
                **token,
            }
        ],
        "issuer": fleet["issuer"],
    }


def run_fleet(
    *,
    aws: int,
    azure: int,
    seed: int,
    data: Path | None,
    as_json: bool,
    **timing: Any,
) -> None:
    """Run the emulated clouds until SIGINT or SIGTERM. `suture local`."""
    stopped = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stopped.set())
    with ExitStack() as stack:
        where = data or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="suture-")))
        fleet = stack.enter_context(
            Fleet(
                aws=aws,
                azure=azure,
                seed=seed,
                data_dir=where,
                **timing,
            )
        )
        if as_json:
            print(json.dumps(fleet.description), flush=True)  # noqa: T201
        else:
            _explain(fleet.description)
        collect_rarely()
        stopped.wait()


def _explain(fleet: dict[str, Any]) -> None:
    aws, azure = fleet["aws"], fleet["azure"]
    lines = [
        f"AWS    {aws['endpoint']}  {len(aws['accounts'])} accounts",
        f"Azure  {azure['resource_manager']}  {len(azure['subscriptions'])} subscriptions, "
        f"sign-in at {azure['authority']}",
        f"CA     {fleet['ca_file']}",
        f"Inventory for Suture: {fleet['inventory']}",
        f"What was planted:     {fleet['truth']}",
        "With --json: credentials, role names and ids for any other tool. Ctrl-C stops.",
    ]
    sys.stdout.write("\n".join(lines) + "\n")
    sys.stdout.flush()
