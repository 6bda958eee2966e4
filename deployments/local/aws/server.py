"""The emulated AWS organization as one object: planted, served, described, stopped."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any, ClassVar

# Read when moto is imported: 3.8 MiB of machine images per account and region, or none.
os.environ.setdefault("MOTO_EC2_LOAD_DEFAULT_AMIS", "false")

from moto.core.base_backend import BackendDict
from moto.core.model_instances import reset_model_data
from moto.organizations.models import organizations_backends
from moto.s3.models import s3_backends

from deployments.local.aws import calls, corrections
from deployments.local.aws import seed as seed_module
from deployments.local.aws.event_bridge import DEAD_LETTERS, QUEUE, EventBridge, plant_queues
from deployments.local.aws.gate import Gate
from deployments.local.aws.listener import Listener

# What a scan and its fixes call, mostly at once.
SERVICES = ("ec2", "iam", "organizations", "s3", "sqs", "sts")


class EmulatedAws:
    """An AWS organization behind one HTTP endpoint on 127.0.0.1.

    ``accounts`` counts the active ones, the management account included; a suspended one comes on
    top, and from six on three members fail unless ``failing`` is False. ``latency`` is added to
    every call, in seconds; so long after a change of a trust policy as ``propagation_seconds``, STS
    goes by the old one. Events come ``event_delay`` seconds after what they tell of, the share
    ``event_duplicates`` twice, and the share ``event_reordering`` up to a second later still.
    Several may run in one process if their seeds differ, because moto's state belongs to the
    process and the seed makes the account numbers.

    After ``start()``: ``description`` is the "aws" object of the fleet description, ``truth`` the
    findings that a scan must report, ``failing`` maps accounts to refused, throttled or timeout.
    """

    _running: ClassVar[set[EmulatedAws]] = set()

    def __init__(
        self,
        accounts: int = 20,
        seed: int = 7,
        regions: Sequence[str] = ("eu-central-1", "us-east-1"),
        failing: bool = True,
        latency: float = 0.0,
        propagation_seconds: float = 0.0,
        event_delay: float = 0.0,
        event_duplicates: float = 0.0,
        event_reordering: float = 0.0,
    ) -> None:
        if accounts < 1 or not regions:
            raise ValueError("an organization needs at least one account and one region")
        self.accounts, self.seed, self.regions = accounts, seed, tuple(regions)
        self._with_failures = failing
        self._latency = latency
        self._propagation = propagation_seconds
        self._event_options = {
            "delay": event_delay,
            "duplicates": event_duplicates,
            "reordering": event_reordering,
        }
        self._bridge: EventBridge | None = None
        self._gate: Gate | None = None
        self._listener: Listener | None = None
        self._planted: seed_module.Planted | None = None

    def start(self) -> EmulatedAws:
        if any(other.seed == self.seed for other in EmulatedAws._running):
            raise RuntimeError(f"an organization of seed {self.seed} already runs in this process")
        corrections.install()
        calls.read_models(SERVICES)
        self._planted = seed_module.plant(
            self.accounts, self.seed, self.regions, failing=self._with_failures
        )
        hub = self._planted.tooling, self.regions[0]
        plant_queues(*hub)
        self._bridge = EventBridge(*hub, seed=self.seed, **self._event_options)
        self._bridge.start()
        self._gate = Gate(
            self._planted.accounts,
            latency=self._latency,
            propagation=self._propagation,
            bridge=self._bridge,
        )
        for account, how in self._planted.failing.items():
            self.fail(account, how)
        self._listener = Listener(self._gate)
        self._listener.start()
        EmulatedAws._running.add(self)
        return self

    def stop(self) -> None:
        """Ends every connection and forgets all state. Harmless when not started."""
        if self._gate and self._listener:
            self._gate.stop()
            assert self._bridge
            self._bridge.stop()
            self._listener.stop()
            self._gate = self._listener = None
            _forget(self._there.accounts)
            EmulatedAws._running.discard(self)
            if not EmulatedAws._running:
                reset_model_data()

    def __enter__(self) -> EmulatedAws:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    # ------------------------------------------------------------ what was planted

    @property
    def endpoint(self) -> str:
        assert self._listener, "not started"
        return self._listener.endpoint

    @property
    def event_queue(self) -> str:
        """The URL of the queue that events of changes come by."""
        return self._queue(QUEUE)

    @property
    def event_dead_letter_queue(self) -> str:
        return self._queue(DEAD_LETTERS)

    def _queue(self, name: str) -> str:
        return f"{self.endpoint}/{self._there.tooling}/{name}"

    @property
    def bridge(self) -> EventBridge:
        """Where events pass: its options may be changed, and what came last be looked at."""
        assert self._bridge, "not started"
        return self._bridge

    @property
    def truth(self) -> list[dict[str, str]]:
        return list(self._there.truth)

    @property
    def failing(self) -> dict[str, str]:
        return dict(self._there.failing)

    @property
    def description(self) -> dict[str, Any]:
        """The "aws" object of the fleet description: endpoint, accounts, roles, credentials."""
        planted = self._there
        return {
            "endpoint": self.endpoint,
            "regions": list(self.regions),
            "partition": "aws",
            "organization": {
                "id": planted.organization,
                "management_account": planted.management,
            },
            "accounts": [
                {"id": one.id, "name": one.name, "status": one.status, "tags": one.tags}
                for one in planted.members
            ],
            "hub": {
                "account": planted.tooling,
                "arn": planted.hub_arn,
                "access_key_id": planted.hub_key[0],
                "secret_access_key": planted.hub_key[1],
            },
            "discovery_role": seed_module.DISCOVERY,
            "event_queue": self.event_queue,
            "event_dead_letter_queue": self.event_dead_letter_queue,
            "scanner_role": seed_module.SCANNER,
            "remediator_role": seed_module.REMEDIATOR,
            "external_id": planted.external_id,
            "customer": {
                "access_key_id": planted.customer_key[0],
                "secret_access_key": planted.customer_key[1],
            },
            "admin_role": seed_module.ADMIN,
        }

    @property
    def _there(self) -> seed_module.Planted:
        assert self._planted, "not started"
        return self._planted

    # ------------------------------------------------------------ controls, for tests

    def fail(self, account: str, how: str) -> None:
        """From now on: "refused" (no scanner trust), "throttled" or "timeout"."""
        assert self._gate, "not started"
        if how not in seed_module.FAILURES:
            raise ValueError(how)
        self.recover(account)
        if how == "refused":
            seed_module.open_to_scan(account, self._there, refused=True)
        else:
            self._gate.faults[account] = how

    def recover(self, account: str) -> None:
        """Undo ``fail``. A call that hangs goes on hanging."""
        assert self._gate, "not started"
        self._gate.faults.pop(account, None)
        seed_module.open_to_scan(account, self._there)

    def advance(self, by: timedelta) -> None:
        """Move the time that sessions expire by and that conditions see."""
        assert self._gate, "not started"
        self._gate.clock_offset += by


def _forget(accounts: Iterable[str]) -> None:
    """Take these accounts out of moto's state, which all of the process shares."""
    for account in accounts:
        if account in s3_backends:
            s3_backends[account]["aws"].reset()  # bucket names are known across accounts
        organizations_backends.master_accounts.pop(account, None)
        for backends in list(BackendDict._instances):
            backends.pop(account, None)
