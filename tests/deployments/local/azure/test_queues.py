"""The emulated queue service over HTTP: who may do what, and what happens to a message."""

from __future__ import annotations

import uuid
from typing import Any
from xml.etree import ElementTree

import httpx
import pytest

from deployments.local.azure.queues import Queue
from deployments.local.azure.rbac import OWNER, QUEUE_CONTRIBUTOR, QUEUE_READER

SCOPE = "https://storage.azure.com/.default"
VERSION = "2024-11-04"


class Messages:
    """The two queues of a fleet, for whoever has a token."""

    def __init__(self, fleet: Any) -> None:
        self.fleet = fleet
        self.tokens: dict[str, str] = {}

    def token(self, who: str) -> str:
        if who not in self.tokens:
            answer = self.fleet.token_request(**self.fleet.about[who], scope=SCOPE)
            self.tokens[who] = answer.raise_for_status().json()["access_token"]
        return self.tokens[who]

    def call(
        self,
        method: str,
        path: str = "/messages",
        *,
        who: str = "scanner",
        token: str | None = None,
        dead: bool = False,
        text: str | None = None,
        headers: dict[str, str] | None = None,
        **query: Any,
    ) -> httpx.Response:
        base = self.fleet.about["event_dead_letter_queue" if dead else "event_queue"]
        sent = {"x-ms-version": VERSION, "Authorization": f"Bearer {token or self.token(who)}"}
        sent |= headers or {}
        body = None
        if text is not None:
            message = ElementTree.Element("QueueMessage")
            ElementTree.SubElement(message, "MessageText").text = text
            body = ElementTree.tostring(message)
        return self.fleet.http.request(
            method,
            f"{base}{path}",
            headers={name: value for name, value in sent.items() if value},
            params=query,
            content=body,
        )

    @property
    def scanner(self) -> str:
        """The object id of the scanner's application."""
        client = self.fleet.about["scanner"]["client_id"]
        return str(self.fleet.azure.tenant.principals[client].object_id)

    def queue(self, *, dead: bool = False) -> Queue:
        found = self.fleet.azure.queues.find(self.fleet.azure.tenant.queues[1 if dead else 0])
        assert found is not None
        return found


@pytest.fixture
def messages(fleet: Any) -> Messages:
    made = Messages(fleet)
    made.queue().messages.clear()
    made.queue(dead=True).messages.clear()
    return made


def given(answer: httpx.Response) -> list[dict[str, str]]:
    assert answer.status_code == 200, answer.text
    root = ElementTree.fromstring(answer.content)
    assert root.tag == "QueueMessagesList"
    return [{one.tag: one.text or "" for one in item} for item in root]


def error(answer: httpx.Response) -> tuple[int, str]:
    """Status and code, which stand in a header and in the body."""
    root = ElementTree.fromstring(answer.content)
    assert root.tag == "Error"
    assert root.findtext("Message")
    assert root.findtext("Code") == answer.headers["x-ms-error-code"]
    assert answer.headers["x-ms-request-id"]
    return answer.status_code, answer.headers["x-ms-error-code"]


class TestMessages:
    def test_one_is_taken_hidden_shown_again_and_deleted(self, messages: Messages) -> None:
        messages.queue().put("one")
        [first] = given(messages.call("GET", visibilitytimeout=60))
        assert first["MessageText"] == "one"
        assert first["DequeueCount"] == "1"
        assert given(messages.call("GET")) == []
        messages.fleet.clock.ahead += 61
        [again] = given(messages.call("GET"))
        assert (again["MessageId"], again["DequeueCount"]) == (first["MessageId"], "2")
        assert again["PopReceipt"] != first["PopReceipt"]
        path = f"/messages/{again['MessageId']}"
        stale = messages.call("DELETE", path, popreceipt=first["PopReceipt"])
        assert error(stale) == (400, "PopReceiptMismatch")
        taken = messages.call("DELETE", path, popreceipt=again["PopReceipt"])
        assert (taken.status_code, taken.content) == (204, b"")
        gone = messages.call("DELETE", path, popreceipt=again["PopReceipt"])
        assert error(gone) == (404, "MessageNotFound")

    def test_as_many_are_given_as_are_asked_for_oldest_first(self, messages: Messages) -> None:
        for number in range(40):
            messages.queue().put(str(number))
        [one] = given(messages.call("GET"))
        assert one["MessageText"] == "0"
        more = given(messages.call("GET", numofmessages=32))
        assert [item["MessageText"] for item in more] == [str(n) for n in range(1, 33)]
        assert len(given(messages.call("GET", numofmessages=32))) == 7

    def test_peeking_takes_nothing(self, messages: Messages) -> None:
        messages.queue().put("one")
        [peeked] = given(messages.call("GET", peekonly="true"))
        assert peeked["DequeueCount"] == "0"
        assert "PopReceipt" not in peeked
        assert len(given(messages.call("GET"))) == 1

    def test_one_is_put_and_lives_as_long_as_is_said(self, messages: Messages) -> None:
        put = messages.call("POST", dead=True, text="<&>", messagettl=10)
        assert put.status_code == 201
        [short] = messages.queue(dead=True).standing()
        assert (short.text, short.taken) == ("<&>", 0)
        assert messages.call("POST", dead=True, text="for ever", messagettl=-1).status_code == 201
        messages.fleet.clock.ahead += 11
        assert [one.text for one in messages.queue(dead=True).standing()] == ["for ever"]
        later = messages.call("POST", dead=True, text="later", visibilitytimeout=30)
        assert later.status_code == 201
        assert [one.text for one in messages.queue(dead=True).shown(5)] == ["for ever"]

    def test_one_is_updated_by_whoever_holds_it(self, messages: Messages) -> None:
        queue = messages.queue()
        messages.fleet.grant(queue.id, messages.scanner, QUEUE_CONTRIBUTOR.id)
        queue.put("one")
        [held] = given(messages.call("GET"))
        path = f"/messages/{held['MessageId']}"
        longer = messages.call(
            "PUT", path, text="two", popreceipt=held["PopReceipt"], visibilitytimeout=0
        )
        assert longer.status_code == 204
        assert longer.headers["x-ms-popreceipt"] != held["PopReceipt"]
        [again] = given(messages.call("GET"))
        assert again["MessageText"] == "two"
        late = messages.call(
            "PUT", path, text="three", popreceipt=held["PopReceipt"], visibilitytimeout=0
        )
        assert error(late) == (400, "PopReceiptMismatch")
        assert messages.call("DELETE").status_code == 204
        assert queue.standing() == []

    def test_the_depth_counts_what_is_in_hand_too(self, messages: Messages) -> None:
        for _ in range(3):
            messages.queue().put("x")
        given(messages.call("GET", numofmessages=2))
        told = messages.call("GET", "", comp="metadata")
        assert told.status_code == 200
        assert told.headers["x-ms-approximate-messages-count"] == "3"


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"numofmessages": 0}, "OutOfRangeQueryParameterValue"),
        ({"numofmessages": 33}, "OutOfRangeQueryParameterValue"),
        ({"numofmessages": "many"}, "InvalidQueryParameterValue"),
        ({"visibilitytimeout": 0}, "OutOfRangeQueryParameterValue"),
        ({"visibilitytimeout": 604_801}, "OutOfRangeQueryParameterValue"),
    ],
)
def test_a_number_out_of_range_is_refused(
    messages: Messages, query: dict[str, Any], code: str
) -> None:
    assert error(messages.call("GET", **query)) == (400, code)


def test_a_request_that_makes_no_sense_is_refused(messages: Messages) -> None:
    queue = messages.queue()
    held = queue.put("x")
    bare = messages.call("DELETE", f"/messages/{held.id}")
    assert error(bare) == (400, "MissingRequiredQueryParameter")
    assert error(messages.call("POST", dead=True)) == (400, "InvalidXmlDocument")
    large = messages.call("POST", dead=True, text="x" * (64 * 1024 + 1))
    assert error(large) == (413, "RequestBodyTooLarge")
    assert messages.call("POST", dead=True, text="x" * (64 * 1024)).status_code == 201
    early = messages.call("POST", dead=True, text="x", messagettl=5, visibilitytimeout=5)
    assert error(early) == (400, "OutOfRangeQueryParameterValue")
    assert error(messages.call("PATCH")) == (405, "UnsupportedHttpVerb")
    assert error(messages.call("GET", "/messages/a/b")) == (400, "InvalidUri")
    for version in ("", "2015-04-05", "latest"):
        old = messages.call("GET", headers={"x-ms-version": version})
        assert error(old) == (400, "InvalidHeaderValue")


class TestAccess:
    def test_without_a_token_there_is_a_challenge_that_names_the_resource(
        self, messages: Messages
    ) -> None:
        answer = messages.call("GET", headers={"Authorization": ""})
        assert error(answer) == (401, "NoAuthenticationInformation")
        challenge = answer.headers["WWW-Authenticate"]
        tenant = messages.fleet.about["tenant"]
        assert f"{messages.fleet.about['authority']}/{tenant}/oauth2/authorize" in challenge
        assert "resource_id=https://storage.azure.com" in challenge

    def test_a_token_for_arm_opens_no_queue_and_one_for_storage_no_arm(
        self, messages: Messages
    ) -> None:
        fleet = messages.fleet
        answer = messages.call("GET", token=fleet.token("scanner"))
        assert error(answer) == (401, "InvalidAuthenticationInfo")
        assert "wrong audience" in answer.text
        # Once it has been read by the one it is judged by the other no less.
        good = messages.token("scanner")
        assert messages.call("GET", token=good).status_code == 200
        refused = fleet.call("GET", "/subscriptions", "2022-12-01", token=good)
        assert fleet.error(refused) == (401, "InvalidAuthenticationTokenAudience")

    def test_a_bad_an_old_and_a_shared_key_authorization_are_refused(
        self, messages: Messages
    ) -> None:
        fleet = messages.fleet
        principal = fleet.azure.tenant.principals[fleet.about["scanner"]["client_id"]]
        past = int(fleet.clock()) - 1
        old = fleet.azure.tokens.sign(principal, "https://storage.azure.com", exp=past)
        assert error(messages.call("GET", token=old)) == (401, "InvalidAuthenticationInfo")
        bad = messages.call("GET", token=f"{old[:-4]}AAAA")
        assert error(bad) == (401, "InvalidAuthenticationInfo")
        key = messages.call("GET", headers={"Authorization": "SharedKey account:c2lnbmF0dXJl"})
        assert error(key) == (403, "KeyBasedAuthenticationNotPermitted")
        own = f"https://{fleet.about['event_queue'].split('/')[3]}.queue.core.windows.net"
        by_account = fleet.azure.tokens.sign(principal, own)
        assert messages.call("GET", token=by_account).status_code == 200

    def test_each_role_allows_what_it_is_for(self, messages: Messages) -> None:
        """The scanner takes from the one queue and adds to the other, and nothing else."""
        mismatch = (403, "AuthorizationPermissionMismatch")
        assert error(messages.call("POST", text="x", who="customer")) == mismatch
        assert error(messages.call("GET", dead=True)) == mismatch
        assert error(messages.call("GET", "", dead=True, comp="metadata")) == mismatch
        assert messages.call("POST", dead=True, text="x").status_code == 201

    def test_an_owner_of_the_account_has_no_part_in_its_messages(self, messages: Messages) -> None:
        """Owner allows every action, none of which is on data; until it gives itself a role."""
        fleet = messages.fleet
        owner = fleet.azure.tenant.principals[fleet.about["customer"]["client_id"]]
        assert any(
            one.role == OWNER
            for one in fleet.azure.tenant.access.all()
            if one.principal == owner.object_id
        )
        peek = {"who": "customer", "peekonly": "true"}
        refused = messages.call("GET", **peek)
        assert error(refused) == (403, "AuthorizationPermissionMismatch")
        depth = messages.call("GET", "", who="customer", comp="metadata")
        assert depth.status_code == 200
        account = messages.queue().id.partition("/queueServices/")[0]
        fleet.grant(account, owner.object_id, QUEUE_READER.id)
        assert messages.call("GET", **peek).status_code == 200
        taking = messages.call("GET", who="customer")
        assert error(taking) == (403, "AuthorizationPermissionMismatch")

    def test_a_custom_role_may_hold_data_actions(self, messages: Messages) -> None:
        fleet, name = messages.fleet, str(uuid.uuid4())
        scope = f"/subscriptions/{fleet.live[0]}"
        actions = ["Microsoft.Storage/storageAccounts/queueServices/queues/messages/*"]
        properties = {
            "roleName": f"Messages {name}",
            "assignableScopes": [scope],
            "permissions": [{"actions": [], "dataActions": actions}],
        }
        path = f"{scope}/providers/Microsoft.Authorization/roleDefinitions/{name}"
        made = fleet.call("PUT", path, fleet.AUTHORIZATION, json={"properties": properties})
        assert made.status_code == 201
        assert made.json()["properties"]["permissions"][0]["dataActions"] == actions
        assert messages.call("GET", dead=True).status_code == 403
        given_role = fleet.grant(messages.queue(dead=True).id, messages.scanner, name)
        assert messages.call("GET", dead=True).status_code == 200
        fleet.call("DELETE", given_role, fleet.AUTHORIZATION).raise_for_status()
        assert messages.call("GET", dead=True).status_code == 403


def test_a_queue_that_is_not_there_and_one_of_an_account_that_is_deleted_are_not_found(
    make_fleet: Any,
) -> None:
    messages = Messages(make_fleet(1))
    queue = messages.queue()
    account = queue.id.partition("/queueServices/")[0]
    messages.fleet.grant(account, messages.scanner, QUEUE_CONTRIBUTOR.id)
    absent = messages.call("GET", "-absent/messages")
    assert error(absent) == (404, "QueueNotFound")
    assert messages.call("GET").status_code == 200
    assert messages.fleet.call("DELETE", account, messages.fleet.STORAGE).status_code == 200
    assert error(messages.call("GET")) == (404, "ResourceNotFound")


def test_a_busy_service_says_so(messages: Messages) -> None:
    messages.fleet.azure.queues.busy = True
    try:
        assert error(messages.call("GET")) == (503, "ServerBusy")
    finally:
        messages.fleet.azure.queues.busy = False
    assert messages.call("GET").status_code == 200
