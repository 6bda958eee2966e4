"""The listener on the whole stack: a bad change is closed, asked about or recorded, and once only.

The customer changes security groups of their own by ARM's API; what the policies do with each is
said by its tag "react". The stack's own queue brings the events of other tests too.
"""

from __future__ import annotations

import base64
import copy
import json
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from azure.identity import ClientSecretCredential
from azure.storage.queue import QueueClient

from deployments.local.azure.rbac import QUEUE_CONTRIBUTOR
from deployments.local.children import Child
from tasks.clouds.azure_write import identity_options, token_scope
from tasks.inventory import load_inventory
from tasks.model import Finding
from tasks.warehouse import audit, events, remediations
from tasks.warehouse.findings import findings_of

# The first to use the stack waits for it to start and to be scanned as well.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

SSH = "azure_network_security_group_ssh_not_open"
GROUPS = "Microsoft.Network/networkSecurityGroups"
NETWORK = "2024-05-01"
AUTHORIZATION = "2022-04-01"
SECONDS = 40  # until what is waited for has happened, on a busy machine
QUIET_SECONDS = 1.5  # that nothing more comes of what has been dealt with
POLICIES = f"""
suture: 1
policies:
  - {{name: close, match: {{rule: {SSH}, tags: {{react: close}}}}, mode: automatic}}
  - {{name: ask, match: {{rule: {SSH}, tags: {{react: ask}}}}, mode: assisted}}
  - name: close-twice
    match: {{rule: {SSH}, tags: {{react: twice}}}}
    mode: automatic
    escalate: {{after: 2, within: 1h}}
"""


def allowed(port: str, priority: int, source: str = "*") -> dict[str, Any]:
    return {
        "protocol": "Tcp",
        "sourcePortRange": "*",
        "destinationPortRange": port,
        "sourceAddressPrefix": source,
        "destinationAddressPrefix": "*",
        "access": "Allow",
        "priority": priority,
        "direction": "Inbound",
    }


OPEN = allowed("22", 200)
HARMLESS = allowed("443", 300, "10.0.0.0/8")


def until(what: Callable[[], Any], why: str, seconds: float = SECONDS) -> Any:
    """What ``what`` gives as soon as it gives something."""
    deadline = time.monotonic() + seconds
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(0.1)
    return found


@dataclass
class Customer:
    """The customer, who makes and changes security groups with a client of their own."""

    fleet: Any
    account: str
    group: str
    client_id: str
    secret: str
    made: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        source = load_inventory(self.fleet.stack.fleet["inventory"]).azure[0]
        self.credential = ClientSecretCredential(
            source.tenant, self.client_id, self.secret, **identity_options(source)
        )
        token = self.credential.get_token(token_scope(source)).token
        claims = token.split(".")[1]
        self.object_id = json.loads(base64.urlsafe_b64decode(claims + "=" * (-len(claims) % 4)))[
            "oid"
        ]
        self.source = source
        self.http = httpx.Client(
            base_url=source.resource_manager,
            headers={"Authorization": f"Bearer {token}"},
            verify=ssl.create_default_context(cafile=source.ca_file),
            trust_env=False,
            timeout=30,
        )
        for home in {one["id"] for one in self.fleet.stack.fleet["azure"]["subscriptions"][:1]}:
            self._may_use_queues(f"/subscriptions/{home}")

    def _may_use_queues(self, scope: str) -> None:
        roles = "providers/Microsoft.Authorization"
        definition = f"{scope}/{roles}/roleDefinitions/{QUEUE_CONTRIBUTOR.id}"
        properties = {"roleDefinitionId": definition, "principalId": self.object_id}
        self.write(
            "PUT",
            f"{scope}/{roles}/roleAssignments/{uuid.uuid4()}",
            {"properties": properties},
            AUTHORIZATION,
        )

    def write(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, version: str = NETWORK
    ) -> httpx.Response:
        """One call of ARM's, polled to its end."""
        answer = self.http.request(method, f"{path}?api-version={version}", json=body)
        assert answer.is_success, answer.text
        if poll := answer.headers.get("Azure-AsyncOperation"):
            until(
                lambda: self.http.get(poll).json()["status"] != "InProgress", "ARM does not end it"
            )
        return answer

    def make(self, react: str = "", **rules: Mapping[str, Any]) -> str:
        """A security group whose findings are treated so, with these rules; returns its id."""
        name = f"react-{len(self.made)}-{uuid.uuid4().hex[:6]}"
        path = f"{self.group}/providers/{GROUPS}/{name}"
        body = {
            "location": "westeurope",
            "tags": {"react": react} if react else {},
            "properties": {
                "securityRules": [
                    {"name": one, "properties": said} for one, said in rules.items()
                ]
            },
        }
        self.write("PUT", path, body)
        self.made.append(path.lower())
        return path.lower()

    def open_ssh(self, resource: str) -> None:
        self.write("PUT", f"{resource}/securityRules/open-ssh", {"properties": OPEN})

    def delete(self, resource: str) -> None:
        self.write("DELETE", resource)

    @contextmanager
    def queue(self, url: str) -> Iterator[QueueClient]:
        with QueueClient.from_queue_url(
            url, credential=self.credential, connection_verify=self.source.ca_file
        ) as client:
            yield client

    def send(self, *bodies: Mapping[str, Any] | str) -> None:
        """Put messages into the queue of events, as Event Grid does."""
        with self.queue(self.source.event_queue) as queue:
            for body in bodies:
                text = body if isinstance(body, str) else json.dumps(body)
                queue.send_message(base64.b64encode(text.encode()).decode())

    def dead_letters(self) -> list[dict[str, Any]]:
        with self.queue(self.source.event_dead_letter_queue) as queue:
            return [
                json.loads(base64.b64decode(one.content)) for one in queue.peek_messages(32)
            ]


@dataclass
class Site:
    """The customer, and what the warehouse and Prefect say of what followed from their changes."""

    fleet: Any
    customer: Customer

    # --- the warehouse -------------------------------------------------------------------------

    def rows(self, query: str, *values: Any) -> list[tuple[Any, ...]]:
        with self.fleet.warehouse() as warehouse:
            return list(warehouse.execute(query, values).fetchall())

    def events(self, resource: str) -> list[dict[str, Any]]:
        """The events about a resource that were taken in, as they came, the last one last."""
        found = self.rows(
            "SELECT e.original FROM events e JOIN event_targets t ON t.cloud = e.cloud "
            "AND t.event_id = e.id WHERE t.resource = %s ORDER BY e.at, e.id",
            resource,
        )
        return [original for (original,) in found]

    def settled(self, resource: str, count: int = 1) -> None:
        """Wait until at least so many events about a resource have come, and all are done."""

        def over() -> bool:
            states = self.rows(
                "SELECT state FROM event_targets WHERE resource = %s", resource
            )
            return len(states) >= count and {one for (one,) in states} == {"done"}

        until(over, f"{resource} is not done")

    def finding(self, resource: str) -> Finding | None:
        """The SSH finding of a resource, while it is open."""
        with self.fleet.warehouse() as warehouse:
            found = findings_of(warehouse, "azure", self.customer.account, [resource])
        return next((one for one in found if one.rule == SSH), None)

    def finding_id(self, resource: str) -> str:
        """The id of a resource's SSH finding, open or not, as soon as there is one."""
        query = "SELECT id FROM findings WHERE resource = %s AND rule = %s"
        ((found,),) = until(lambda: self.rows(query, resource, SSH), f"no finding on {resource}")
        return str(found)

    def remediations(self, finding_id: str) -> list[Any]:
        """The last one first."""
        with self.fleet.warehouse() as warehouse:
            return remediations.remediations_of(warehouse, finding_id)

    def fixed(self, resource: str, times: int = 1) -> str:
        """Wait until a resource has been closed so often and all is done; the finding's id."""
        finding_id = self.finding_id(resource)

        def closed() -> bool:
            states = [one.state for one in self.remediations(finding_id)]
            return states.count("remediated") >= times

        until(closed, f"{resource} is not closed: {self.remediations(finding_id)}")
        self.settled(resource)
        return finding_id

    def said(self, subject: str) -> list[tuple[str, dict[str, Any]]]:
        """What the record says of a subject: action and details."""
        with self.fleet.warehouse() as warehouse:
            return [
                (one.action, dict(one.details)) for one in audit.entries_about(warehouse, [subject])
            ]

    def listeners(self) -> list[events.ListenerRow]:
        with self.fleet.warehouse() as warehouse:
            return events.listeners(warehouse)

    def scans(self, resource: str) -> int:
        """How many scans that events began have read a resource."""
        ((count,),) = self.rows(
            "SELECT count(DISTINCT s.id) FROM scans s JOIN event_targets t ON t.scan_id = s.id "
            "WHERE t.resource = %s AND s.trigger = 'event'",
            resource,
        )
        return int(count)

    # --- Prefect -------------------------------------------------------------------------------

    def prefect(self, path: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.fleet.stack.api_url}/{path}", trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    # --- listeners -----------------------------------------------------------------------------

    def listen(self, name: str, env: Mapping[str, str] | None = None) -> Child:
        """Start a listener, and wait until it says that it lives."""
        before = {one.host for one in self.listeners()}
        child = Child(
            name,
            [sys.executable, "-m", "deployments.cli", "react"],
            {**self.fleet.stack.env, **(env or {})},
            self.fleet.stack.logs / f"{name}.log",
        )
        try:
            child.wait_until(
                lambda: bool({one.host for one in self.listeners()} - before), seconds=SECONDS
            )
        except BaseException:
            child.stop()
            raise
        return child


@pytest.fixture(scope="module")
def site(fleet: Any) -> Iterator[Site]:
    """The stack under this file's policies; what was made on it is deleted in the end."""
    policies = Path(fleet.stack.env["SUTURE_POLICIES"])
    kept = policies.read_text()
    planted = fleet.open_findings(SSH)[0]
    login = fleet.stack.fleet["azure"]["customer"]
    group = planted.resource.partition("/providers/")[0]
    customer = Customer(
        fleet, planted.account, group, login["client_id"], login["client_secret"]
    )
    made = Site(fleet, customer)
    policies.write_text(POLICIES)
    try:
        yield made
        for resource in customer.made:
            if customer.http.get(f"{resource}?api-version={NETWORK}").is_success:
                customer.delete(resource)
        if any(made.finding(resource) for resource in customer.made):
            with running(made, "last-listener"):
                for resource in customer.made:
                    until(lambda one=resource: made.finding(one) is None, f"{resource} is open")
    finally:
        policies.write_text(kept)
        customer.http.close()
        customer.credential.close()


@contextmanager
def running(site: Site, name: str, env: Mapping[str, str] | None = None) -> Iterator[Child]:
    child = site.listen(name, env)
    try:
        yield child
        assert child.running, child.tail()
    finally:
        child.stop()


@pytest.fixture(scope="module")
def listener(site: Site) -> Iterator[Child]:
    """A listener that most of these tests share; those that need none end it."""
    with ExitStack() as opened:
        yield opened.enter_context(running(site, "listener"))


def test_a_bad_change_is_closed_and_it_is_said_who_made_it(site: Site, listener: Child) -> None:
    resource = site.customer.make("close", harmless=HARMLESS)
    site.settled(resource)
    assert site.finding(resource) is None
    before = len(site.events(resource))

    site.customer.open_ssh(resource)

    finding_id = site.fixed(resource)
    assert site.finding(resource) is None
    now = site.customer.http.get(f"{resource}?api-version={NETWORK}").json()
    assert [one["name"] for one in now["properties"]["securityRules"]] == ["harmless"]
    came = site.events(resource)[before:]
    ours = [one["data"]["httpRequest"]["method"] for one in came]
    assert ours == ["PUT"], "the fix is no news"
    (told,) = came
    ((actor, source_ip, operation),) = site.rows(
        "SELECT actor, source_ip, operation FROM events WHERE id = %s", told["id"]
    )
    assert (actor, source_ip) == (site.customer.client_id, "127.0.0.1")
    assert operation == f"{GROUPS}/securityRules/write"

    (row,) = site.remediations(finding_id)
    assert (row.state, row.mode, row.policy) == ("remediated", "automatic", "close")
    assert told["id"] in row.requested_by
    ((found_by, by, where, event_id, minutes, ends),) = site.rows(
        "SELECT found_first_by, changed_by, changed_from, event_id, minutes_exposed, resolution "
        "FROM exposure WHERE finding_id = %s",
        finding_id,
    )
    assert (found_by, by, where) == ("event", site.customer.client_id, "127.0.0.1")
    assert (event_id, ends) == (told["id"], "pass")
    assert 0 < minutes < 0.5
    ((action, details),) = [one for one in site.said(finding_id) if one[0] == "event"]
    assert (action, details["event"], details["by"]) == ("event", told["id"], actor)
    assert details["policy"] == "close"

    run = site.prefect(f"flow_runs/{row.run_id}")
    parent = site.prefect(f"task_runs/{run['parent_task_run_id']}")["flow_run_id"]
    assert parent in {one.flow_run_id for one in site.listeners()}
    assert run["state"]["name"] == "Remediated"
