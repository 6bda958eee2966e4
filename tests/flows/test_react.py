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
from contextlib import contextmanager, suppress
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
from tasks.model import AccountScan, Finding
from tasks.warehouse import audit, events, remediations, scans
from tasks.warehouse.findings import account_of, open_findings

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


def until(what: Callable[[], Any], why: str, pause: float = 0.1) -> Any:
    """What ``what`` gives as soon as it gives something."""
    deadline = time.monotonic() + SECONDS
    while not (found := what()):
        assert time.monotonic() < deadline, why
        time.sleep(pause)
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
        home = self.fleet.stack.fleet["azure"]["subscriptions"][0]["id"]
        self._access = self._may_use_queues(f"/subscriptions/{home}")

    def _may_use_queues(self, scope: str) -> str:
        """An owner may give themselves what the role of an owner does not hold."""
        roles = f"{scope}/providers/Microsoft.Authorization"
        assignment = f"{roles}/roleAssignments/{uuid.uuid4()}"
        properties = {
            "roleDefinitionId": f"{roles}/roleDefinitions/{QUEUE_CONTRIBUTOR.id}",
            "principalId": self.object_id,
        }
        self.write("PUT", assignment, {"properties": properties}, AUTHORIZATION)
        return assignment

    def close(self) -> None:
        self.write("DELETE", self._access, version=AUTHORIZATION)
        self.http.close()
        self.credential.close()

    def write(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, version: str = NETWORK
    ) -> httpx.Response:
        """One call of ARM's, polled to its end."""
        answer = self.http.request(method, f"{path}?api-version={version}", json=body)
        if not answer.is_success:
            self.http.close()  # else it would be closed too late to tell of the failure
        assert answer.is_success, answer.text
        if poll := answer.headers.get("Azure-AsyncOperation"):
            until(
                lambda: self.http.get(poll).json()["status"] != "InProgress",
                "ARM does not end it",
                pause=0.0,
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
                "securityRules": [{"name": one, "properties": said} for one, said in rules.items()]
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
            return [json.loads(base64.b64decode(one.content)) for one in queue.peek_messages(32)]


@dataclass
class Site:
    """The customer, and what the warehouse and Prefect say of what followed from their changes."""

    fleet: Any
    customer: Customer
    shared: Child | None = None

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
            states = self.rows("SELECT state FROM event_targets WHERE resource = %s", resource)
            return len(states) >= count and {one for (one,) in states} == {"done"}

        until(over, f"{resource} is not done")

    def finding(self, resource: str) -> Finding | None:
        """The SSH finding of a resource, while it is open."""
        with self.fleet.warehouse() as warehouse:
            found = open_findings(
                warehouse, cloud="azure", account=self.customer.account, resource_ids=[resource]
            )
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
                (one.action, json.loads(one.details))
                for one in audit.entries_about(warehouse, [subject])
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

    def waiting(self) -> int:
        """How many messages are in the queue of events."""
        with self.customer.queue(self.customer.source.event_queue) as queue:
            return int(queue.get_queue_properties().approximate_message_count or 0)

    def delete_all(self) -> None:
        """Delete what the customer made, and resolve what is open of it: nobody else is to see."""
        gone = []
        for resource in self.customer.made:
            if self.customer.http.get(f"{resource}?api-version={NETWORK}").is_success:
                self.customer.delete(resource)
            if found := self.finding(resource):
                gone.append((found.region, found.kind, resource))
        with self.fleet.warehouse() as warehouse:
            account = account_of(warehouse, "azure", self.customer.account)
            scans.merge_one(warehouse, AccountScan(account, [], []), "test", gone=gone)

    # --- Prefect -------------------------------------------------------------------------------

    def ended(self, run_id: str) -> dict[str, Any]:
        """A flow run at its end: one that is done with what it has waits a moment for more."""

        def look() -> dict[str, Any] | None:
            run = self.prefect(f"flow_runs/{run_id}")
            return run if run["state"]["type"] != "RUNNING" else None

        found: dict[str, Any] = until(look, f"{run_id} does not end")
        return found

    def prefect(self, path: str) -> dict[str, Any]:
        answer = httpx.get(f"{self.fleet.stack.api_url}/{path}", trust_env=False)
        found: dict[str, Any] = answer.raise_for_status().json()
        return found

    # --- listeners -----------------------------------------------------------------------------

    def end_shared(self) -> None:
        if self.shared is not None:
            self.shared.stop()

    def start(self, name: str, env: Mapping[str, str] | None = None, *dies: str) -> Child:
        """Start a listener. ``dies``: see dying_listener."""
        script = str(Path(__file__).with_name("dying_listener.py"))
        command = [script, *dies] if dies else ["-m", "deployments.cli", "react"]
        return Child(
            name,
            [sys.executable, *command],
            {**self.fleet.stack.env, **(env or {})},
            self.fleet.stack.logs / f"{name}.log",
        )

    def listen(self, name: str, env: Mapping[str, str] | None = None, *dies: str) -> Child:
        """Start a listener, and wait until it says that it lives."""
        before = {one.host for one in self.listeners()}
        child = self.start(name, env, *dies)
        try:
            child.wait_until(
                lambda: bool({one.host for one in self.listeners()} - before), seconds=SECONDS
            )
        except BaseException:
            child.stop()
            raise
        return child


class Way:
    """A TCP port that leads to another, until it is cut."""

    def __init__(self, address: str) -> None:
        """``address`` is the URL of what it leads to; ``url`` is the same by this way."""
        parts = urlsplit(address)
        self._to = (parts.hostname or "", parts.port or 5432)
        self._open: list[socket.socket] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._port = self._listening.getsockname()[1]
        own = parts.netloc.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{self._port}")
        self.url = urlunsplit(parts._replace(netloc=own))
        self._serve()

    def _serve(self) -> None:
        threading.Thread(target=self._accept, args=(self._listening,), daemon=True).start()

    def _accept(self, listening: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(self._to)
                self._open += [near, far]
                for one, other in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(one, other), daemon=True).start()

    def _carry(self, one: socket.socket, other: socket.socket) -> None:
        with suppress(OSError):
            while got := one.recv(65536):
                other.sendall(got)
        with suppress(OSError):
            other.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        """End every connection, and refuse new ones."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for one in self._open:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def mend(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", self._port))
        self._serve()


@pytest.fixture(scope="module")
def site(fleet: Any) -> Iterator[Site]:
    """The stack under this file's policies; what was made on it is deleted in the end."""
    policies = Path(fleet.stack.env["SUTURE_POLICIES"])
    kept = policies.read_text()
    planted = fleet.open_findings(SSH)[0]
    login = fleet.stack.fleet["azure"]["customer"]
    group = planted.resource.partition("/providers/")[0]
    customer = Customer(fleet, planted.account, group, login["client_id"], login["client_secret"])
    made = Site(fleet, customer)
    policies.write_text(POLICIES)
    try:
        yield made
        made.end_shared()
        made.delete_all()
    finally:
        made.end_shared()
        policies.write_text(kept)
        customer.close()


@contextmanager
def running(
    site: Site, name: str, env: Mapping[str, str] | None = None, *dies: str
) -> Iterator[Child]:
    child = site.listen(name, env, *dies)
    try:
        yield child
    finally:
        child.stop()


@pytest.fixture
def listener(site: Site) -> Child:
    """The listener that most of these tests share."""
    if site.shared is None or not site.shared.running:
        site.shared = site.listen("listener")
    return site.shared


@pytest.fixture
def alone(site: Site) -> None:
    """Nobody listens but whom the test starts."""
    site.end_shared()


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
    assert (action, details["event"], details["changed_by"]) == ("event", told["id"], actor)
    assert details["policy"] == "close"

    run = site.ended(row.run_id)
    parent = site.prefect(f"task_runs/{run['parent_task_run_id']}")["flow_run_id"]
    assert parent in {one.flow_run_id for one in site.listeners()}
    assert run["state"]["name"] == "Remediated"


def test_an_assisted_policy_asks_and_where_there_is_none_it_is_only_written_down(
    site: Site, listener: Child
) -> None:
    asked, recorded = site.customer.make("ask", ssh=OPEN), site.customer.make(ssh=OPEN)
    finding_id = site.finding_id(asked)
    (row,) = until(lambda: site.remediations(finding_id), "nobody is asked")
    page = site.fleet.wait_until_suspended(row.run_id)
    assert (row.state, row.mode, row.policy) == ("waiting", "assisted", "ask")
    assert asked.rpartition("/")[2] in page.lower()
    for resource in (asked, recorded):
        site.settled(resource)
    before = len(site.events(asked))
    site.customer.write("PATCH", asked, {"tags": {"react": "ask", "again": "yes"}})
    site.settled(asked, before + 1)
    time.sleep(QUIET_SECONDS)
    assert len(site.remediations(finding_id)) == 1, "it is asked once"
    assert site.remediations(site.finding_id(recorded)) == []
    assert site.finding(recorded) is not None
    assert site.fleet.answer(row.run_id, decision="deny") == "ACCEPT"
    assert site.fleet.end(row.run_id)["name"] == "Denied"


def test_a_burst_of_changes_is_few_scans_and_one_fix(site: Site, listener: Child) -> None:
    resource = site.customer.make("close", harmless=HARMLESS)
    site.settled(resource)
    before = site.scans(resource)
    site.customer.open_ssh(resource)
    for number in range(49):
        rule = {**HARMLESS, "description": f"change {number}"}
        path = f"{resource}/securityRules/harmless"
        site.customer.write("PUT", path, {"properties": rule})

    finding_id = site.fixed(resource)

    assert len(site.events(resource)) >= 51
    assert site.scans(resource) - before <= 25, "a burst is no scan for each change"
    states = [one.state for one in site.remediations(finding_id)]
    assert states.count("remediated") == 1, states
    assert set(states) <= {"remediated", "drifted"}, "some may have met the next change"
    assert site.finding(resource) is None


def test_what_comes_while_a_run_changes_others_is_taken_on_by_it(
    site: Site, listener: Child
) -> None:
    made = [site.customer.make("close", harmless=HARMLESS) for _ in range(8)]
    for resource in made:
        site.settled(resource)
    for resource in made:
        site.customer.open_ssh(resource)
        time.sleep(0.2)
    found = [site.remediations(site.fixed(resource)) for resource in made]
    rows = [one for records in found for one in records if one.state == "remediated"]
    assert len(rows) == len(made), "each is closed once"
    assert all(site.finding(resource) is None for resource in made)
    asked_by: dict[str, set[str]] = {}
    for row in rows:
        asked_by.setdefault(row.run_id, set()).add(row.requested_by)
    assert max(map(len, asked_by.values())) > 1, "a run took on what another change asked for"
    for run_id in asked_by:
        numbers = sorted(row.number for row in rows if row.run_id == run_id)
        run = site.ended(run_id)
        # It may have begun with what another test has left it.
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        if numbers[-1] > 1:
            assert run["name"].startswith(f"Fix {numbers[-1]} findings")


def test_events_that_come_twice_late_or_out_of_order_change_nothing(
    site: Site, listener: Child
) -> None:
    resource = site.customer.make("close", ssh=OPEN)
    finding_id = site.fixed(resource)
    came = site.events(resource)
    week_old = {
        **copy.deepcopy(came[-1]),
        "id": str(uuid.uuid4()),
        "eventTime": (datetime.now(UTC) - timedelta(days=7)).isoformat(),
    }
    scanned = site.scans(resource)

    site.customer.send(*reversed(came), *came, week_old, week_old)

    site.settled(resource, len(came) + 1)
    until(lambda: site.waiting() == 0, "messages are left")
    assert len(site.events(resource)) == len(came) + 1
    assert site.scans(resource) == scanned + 1, "only the old one was new"
    assert [one.state for one in site.remediations(finding_id)] == ["remediated"]
    assert site.finding(resource) is None
    assert [one for one, _ in site.said(finding_id)] == ["event"]


def test_deleting_a_resource_resolves_its_findings(site: Site, listener: Child) -> None:
    resource = site.customer.make(ssh=OPEN)
    finding_id = site.finding_id(resource)

    site.customer.delete(resource)

    until(lambda: site.finding(resource) is None, "the finding is open still")
    ends = site.rows("SELECT status, resolution FROM findings WHERE id = %s", finding_id)
    assert ends == [("resolved", "resource_gone")]


def test_reads_failures_and_our_own_fixes_are_no_events(site: Site, listener: Child) -> None:
    resource = site.customer.make("close", ssh=OPEN)
    site.fixed(resource)
    (sample, *_) = site.events(resource)
    own = site.fleet.stack.fleet["azure"]["remediator"]["client_id"]
    operation = f"{GROUPS}/read"
    passed_over = [
        changed(sample, operationName=operation, **{"authorization.action": operation}),
        changed(sample, "Microsoft.Resources.ResourceWriteFailure", status="Failed"),
        changed(sample, **{"claims.appid": own}),
        changed(sample, operationName="Microsoft.Compute/disks/write"),
    ]
    last = changed(sample)
    failed = site.customer.http.put(f"{resource}?api-version={NETWORK}", json={"location": 7})
    assert failed.status_code == httpx.codes.BAD_REQUEST

    site.customer.send(*passed_over, last)

    until(lambda: site.rows("SELECT 1 FROM events WHERE id = %s", last["id"]), "it is not taken in")
    until(lambda: site.waiting() == 0, "messages are left")
    ids = [one["id"] for one in passed_over]
    assert site.rows("SELECT id, operation FROM events WHERE id = ANY(%s)", ids) == []
    assert site.rows("SELECT id FROM events WHERE actor = %s", own) == []


def changed(event: Mapping[str, Any], kind: str = "", **data: Any) -> dict[str, Any]:
    """The event with another id, and of another kind or with other data where they are given."""
    found = copy.deepcopy(dict(event))
    found["id"] = str(uuid.uuid4())
    found["eventType"] = kind or found["eventType"]
    for path, value in data.items():
        *outer, last = path.split(".")
        at = found["data"]
        for name in outer:
            at = at[name]
        at[last] = value
    return found


def test_what_comes_back_is_said_and_then_asked_about(site: Site, listener: Child) -> None:
    resource = site.customer.make("twice", ssh=OPEN)
    finding_id = site.fixed(resource)
    assert "came back" not in [action for action, _ in site.said(finding_id)]

    site.customer.open_ssh(resource)

    site.fixed(resource, 2)
    (told,) = [details for action, details in site.said(finding_id) if action == "came back"]
    assert (told["changed_by"], told["changed_from"]) == (site.customer.client_id, "127.0.0.1")
    assert told["closed_before"] == 1
    assert told["event"] == site.events(resource)[-1]["id"]

    site.customer.open_ssh(resource)

    last = until(lambda: third(site, finding_id), "nothing follows")
    site.fleet.wait_until_suspended(last.run_id)
    assert (last.mode, last.state, last.policy) == ("assisted", "waiting", "close-twice")
    assert site.finding(resource) is not None
    times = [one["closed_before"] for action, one in site.said(finding_id) if action == "came back"]
    assert times == [1, 2]
    site.fleet.answer(last.run_id, decision="deny")
    site.fleet.end(last.run_id)


def third(site: Site, finding_id: str) -> Any:
    """The newest remediation, where it is the third."""
    found = site.remediations(finding_id)
    return found[0] if len(found) == 3 else None


def test_a_message_nobody_can_read_is_put_aside_with_the_reason(
    site: Site, listener: Child
) -> None:
    mark = uuid.uuid4().hex
    resource = site.customer.make(harmless=HARMLESS)
    site.settled(resource)

    site.customer.send(
        f"no JSON {mark}", {"id": mark, "eventType": "Microsoft.Storage.BlobCreated"}
    )
    site.customer.open_ssh(resource)

    site.finding_id(resource)
    letters: list[dict[str, Any]] = []

    def put_aside() -> bool:
        letters[:] = [one for one in site.customer.dead_letters() if mark in one["body"]]
        return len(letters) >= 2

    until(put_aside, "they are not put aside")
    reasons = {one["reason"] for one in letters}
    assert len(letters) == 2
    assert any("JSON" in one for one in reasons), reasons
    assert any("BlobCreated" in one for one in reasons), reasons
    until(lambda: site.waiting() == 0, "messages are left")


def test_the_status_tells_how_it_goes_and_sigterm_ends_in_order(
    site: Site, listener: Child
) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "deployments.cli", "react", "--status", "--format", "json"],
        env=site.fleet.stack.env,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    told = json.loads(done.stdout)
    assert told["clouds"].keys() == {"aws", "azure"}
    azure = told["clouds"]["azure"]
    assert (azure["waiting"], azure["lag_seconds"], azure["in_flight"]) == (0, 0, 0)
    (one,) = told["listeners"]
    assert one["host"].endswith(f":{listener.process.pid}")
    assert one["events"] > 0
    assert one["queues"]["emulated-tenant"]["waiting"] >= 0

    with running(site, "another-listener") as child:
        assert len(site.listeners()) == 2
        child.process.send_signal(signal.SIGTERM)
        assert child.process.wait(SECONDS) == 0, child.tail()
        assert "Stopped." in child.log.read_text()
        assert len(site.listeners()) == 1
        runs = "flow_runs/filter"
        body = {"flows": {"name": {"any_": ["react"]}}, "sort": "START_TIME_DESC", "limit": 1}
        (run,) = httpx.post(f"{site.fleet.stack.api_url}/{runs}", json=body, trust_env=False).json()
        assert (run["state"]["type"], run["state"]["name"]) == ("COMPLETED", "Stopped")


# When one listener after another is killed over one change.
DEATHS = (
    *("taken in", "claimed", "read again", "merged", "about to close"),
    *("gate open", "begun", "after step 1"),
)


def test_one_listener_after_another_is_killed_and_the_change_is_closed_once(
    site: Site, alone: None
) -> None:
    with running(site, "dying", None, *DEATHS, "never") as child:
        resource = site.customer.make("close", ssh=OPEN)
        finding_id = site.finding_id(resource)
        until(lambda: site.finding(resource) is None, f"it is open: {child.tail()}")
        site.settled(resource)
        until(lambda: site.remediations(finding_id)[0].state == "remediated", "it is not settled")
    lines = child.log.read_text().splitlines()
    ends = [json.loads(line) for line in lines if line.startswith('{"at"')]
    assert ends[-len(DEATHS) :] == [{"at": one, "ended": signal.SIGKILL} for one in DEATHS]
    now = site.customer.http.get(f"{resource}?api-version={NETWORK}").json()
    assert now["properties"]["securityRules"] == []
    found = site.remediations(finding_id)
    assert [one.state for one in found] == ["remediated", "failed", "expired"]
    assert "after" in site.fleet.snapshots(found[0].id)
    said = [action for action, _ in site.said(found[0].id)]
    assert (said.count("applying"), said.count("settled")) == (1, 1)


def test_two_listeners_share_the_work_and_one_takes_over_from_the_other(
    site: Site, alone: None
) -> None:
    both = [site.start(name, None, "never") for name in ("survivor", "victim")]
    try:
        ids = {f":{one.process.pid}" for one in both}
        until(
            lambda: all(any(one.host.endswith(x) for one in site.listeners()) for x in ids),
            "they do not listen",
        )
        opened = [site.customer.make("close", ssh=OPEN) for _ in range(3)]
        until(lambda: all(site.events(one) for one in opened), "not all are taken in", pause=0.0)
        both[1].process.kill()
        found = [site.finding_id(one) for one in opened]
        for resource in opened:
            until(lambda one=resource: site.finding(one) is None, f"open: {both[0].tail()}")
            site.settled(resource)
        for finding_id in found:
            states = [one.state for one in site.remediations(finding_id)]
            assert states.count("remediated") <= 1, states
            assert set(states) <= {"remediated", "applying", "expired", "failed"}, states
        assert both[0].running
    finally:
        for child in both:
            child.stop()


@dataclass
class CutOff:
    """A listener that reaches the queue, the warehouse and Prefect by ways that can be cut."""

    child: Child
    ways: Mapping[str, Way]


@pytest.fixture(scope="module")
def cut_off(site: Site, tmp_path_factory: pytest.TempPathFactory) -> Iterator[CutOff]:
    site.end_shared()
    env, source = site.fleet.stack.env, site.customer.source
    ways = {
        "queue": Way(source.event_queue),
        "warehouse": Way(env["SUTURE_WAREHOUSE_URL"]),
        "Prefect": Way(env["PREFECT_API_URL"]),
    }
    inventory = tmp_path_factory.mktemp("cut-off") / "inventory.yaml"
    text = Path(env["SUTURE_INVENTORY"]).read_text()
    inventory.write_text(
        text.replace(f"event_queue: {source.event_queue}\n", f"event_queue: {ways['queue'].url}\n")
    )
    own = {
        "SUTURE_INVENTORY": str(inventory),
        "SUTURE_WAREHOUSE_URL": ways["warehouse"].url,
        "PREFECT_API_URL": ways["Prefect"].url,
    }
    try:
        with running(site, "cut-off", own, "never") as child:
            yield CutOff(child, ways)
            child.process.send_signal(signal.SIGTERM)
            assert child.process.wait(SECONDS) == 0, child.tail()
    finally:
        for way in ways.values():
            way.cut()


@pytest.mark.parametrize("name", ["queue", "warehouse", "Prefect"])
def test_what_is_away_for_a_while_is_caught_up_with(
    site: Site, alone: None, cut_off: CutOff, name: str
) -> None:
    cut_off.ways[name].cut()
    try:
        resource = site.customer.make("close", ssh=OPEN)
        time.sleep(QUIET_SECONDS)
        states = site.rows("SELECT state FROM event_targets WHERE resource = %s", resource)
        assert ("done",) not in states, "it is not away"
    finally:
        cut_off.ways[name].mend()
    finding_id = site.fixed(resource)
    assert cut_off.child.running, cut_off.child.tail()
    done = [one.state for one in site.remediations(finding_id)]
    assert done.count("remediated") == 1, done


@pytest.mark.parametrize("name", ["warehouse", "Prefect"])
def test_what_goes_away_in_the_middle_of_a_fix_is_caught_up_with(
    site: Site, alone: None, cut_off: CutOff, name: str
) -> None:
    resource = site.customer.make("close", ssh=OPEN)
    finding_id = site.finding_id(resource)
    until(lambda: site.remediations(finding_id), "nothing is begun", pause=0.0)
    cut_off.ways[name].cut()
    time.sleep(QUIET_SECONDS)
    cut_off.ways[name].mend()
    until(lambda: site.finding(resource) is None, f"it is open: {cut_off.child.tail()}")
    site.settled(resource)
    assert cut_off.child.running, cut_off.child.tail()
    now = site.customer.http.get(f"{resource}?api-version={NETWORK}").json()
    assert now["properties"]["securityRules"] == []
    done = [one.state for one in site.remediations(finding_id)]
    assert done.count("remediated") == 1, done
