"""Azure's activity log is read in both of Event Grid's schemas, and nothing crashes on any."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BadEvent
from tasks.formats.event_grid import entries_in, read_entry, read_event_grid
from tasks.formats.sent import NOT_KEPT
from tasks.model import Cloud

SUBSCRIPTION = "00000000-0000-4000-8000-00000000ABCD"
APPLICATION = "0F4E3C1A-1111-4222-8333-444455556666"
ACCOUNT = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/Shop/providers/Microsoft.Storage"
    "/storageAccounts/acmelogs"
)
NAMES = "http://schemas.xmlsoap.org/ws/2005/05/identity/claims"
CLAIMS = {
    "aud": "https://management.core.windows.net/",
    "iss": "https://sts.windows.net/11111111-2222-4333-8444-555566667777/",
    "iat": "1772366000",
    "aio": "E2RgYOgo",
    "appid": APPLICATION,
    "appidacr": "2",
    f"{NAMES}/name": "live.com#ann@example.com",
    f"{NAMES}/upn": "ann@example.com",
    "ipaddr": "198.51.100.7",
    "uti": "x",
    "ver": "1.0",
}
DATA: dict[str, Any] = {
    "authorization": {
        "scope": ACCOUNT,
        "action": "Microsoft.Storage/storageAccounts/write",
        "evidence": {"role": "Contributor"},
    },
    "claims": CLAIMS,
    "correlationId": "2b1f3f4e-0000-4000-8000-000000000001",
    "httpRequest": {
        "clientRequestId": "c-1",
        "clientIpAddress": "203.0.113.9",
        "method": "PUT",
        "url": f"https://management.azure.com{ACCOUNT}?api-version=2023-05-01",
    },
    "resourceProvider": "Microsoft.Storage",
    "resourceUri": ACCOUNT,
    "operationName": "Microsoft.Storage/storageAccounts/write",
    "status": "Succeeded",
    "subscriptionId": SUBSCRIPTION,
    "tenantId": "11111111-2222-4333-8444-555566667777",
}
EVENT: dict[str, Any] = {
    "subject": ACCOUNT,
    "eventType": "Microsoft.Resources.ResourceWriteSuccess",
    "eventTime": "2026-03-01T12:00:00.1234567Z",
    "id": "4db48cba-50a2-455a-93b4-de41a3b5b7f6",
    "data": DATA,
    "dataVersion": "2",
    "metadataVersion": "1",
    "topic": f"/subscriptions/{SUBSCRIPTION}",
}
CLOUD_EVENT: dict[str, Any] = {
    "specversion": "1.0",
    "id": EVENT["id"],
    "source": f"/subscriptions/{SUBSCRIPTION}",
    "subject": ACCOUNT,
    "type": EVENT["eventType"],
    "time": EVENT["eventTime"],
    "data": DATA,
}


def read(data: Any = None, **changed: Any) -> Any:
    """The sample with ``changed`` fields and with those of ``data``; None takes one out."""
    inner = {name: said for name, said in {**DATA, **(data or {})}.items() if said is not None}
    whole = {**EVENT, "data": inner, **changed}
    body = json.dumps({name: said for name, said in whole.items() if said is not None})
    (event,) = read_event_grid(body)
    return event


def test_event_grids_own_schema_is_read() -> None:
    (event,) = read_event_grid(json.dumps([EVENT]))
    assert event.cloud is Cloud.AZURE
    assert event.id == EVENT["id"]
    assert (event.account, event.region) == (SUBSCRIPTION.lower(), "")
    assert event.operation == "Microsoft.Storage/storageAccounts/write"
    assert event.at == datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
    assert (event.actor, event.identity) == ("ann@example.com", APPLICATION.lower())
    assert event.source_ip == "198.51.100.7"
    assert (event.read_only, event.failure) == (False, "")
    assert event.resource == ACCOUNT.lower()
    assert event.details == {"correlationId": DATA["correlationId"], "status": "Succeeded"}
    assert event.original == {**EVENT, "data": {**DATA, "claims": {**CLAIMS, "aio": NOT_KEPT}}}


def test_cloud_events_say_the_same() -> None:
    (event,) = read_event_grid(json.dumps(CLOUD_EVENT))
    (own,) = read_event_grid(json.dumps(EVENT))
    assert {**vars_of(event), "original": None} == {**vars_of(own), "original": None}
    assert event.original["specversion"] == "1.0"


def vars_of(event: Any) -> dict[str, Any]:
    return {name: getattr(event, name) for name in event.__dataclass_fields__}


def test_arrays_are_several_events_in_their_order() -> None:
    second = {**CLOUD_EVENT, "id": "second"}
    found = read_event_grid(json.dumps([EVENT, second]))
    assert [one.id for one in found] == [EVENT["id"], "second"]


def test_what_is_readable_of_an_array_can_be_taken_though_one_is_not() -> None:
    body = json.dumps([EVENT, {**EVENT, "id": ""}])
    with pytest.raises(BadEvent, match="id: is not there"):
        read_event_grid(body)
    first, second = entries_in(body)
    assert read_entry(first).id == EVENT["id"]
    with pytest.raises(BadEvent):
        read_entry(second)


def test_a_body_that_is_still_base64_is_read() -> None:
    for one in (EVENT, [CLOUD_EVENT]):
        body = base64.b64encode(json.dumps(one).encode()).decode()
        assert read_event_grid(body) == read_event_grid(json.dumps(one))


@pytest.mark.parametrize("what", ["Write", "Delete", "Action"])
@pytest.mark.parametrize(
    ("how", "status", "failure"),
    [
        ("Success", "Succeeded", ""),
        ("Success", None, ""),
        ("Failure", "Failed", "Failed"),
        ("Failure", None, "Failed"),
        ("Cancel", "Canceled", "Canceled"),
        ("Cancel", None, "Canceled"),
    ],
)
def test_every_outcome_is_read(what: str, how: str, status: Any, failure: str) -> None:
    event = read({"status": status}, eventType=f"Microsoft.Resources.Resource{what}{how}")
    assert (event.failure, event.read_only) == (failure, False)


@pytest.mark.parametrize(
    ("claims", "actor", "identity"),
    [
        ({f"{NAMES}/name": "ann"}, "ann", ""),
        ({"name": "Ann", "appid": "A-1"}, "Ann", "a-1"),
        ({"appid": "A-1", "idtyp": "app"}, "A-1", "a-1"),
        ({"azp": "A-2", "ver": "2.0"}, "A-2", "a-2"),
        ({}, "", ""),
        (None, "", ""),
        (json.dumps(CLAIMS), "ann@example.com", APPLICATION.lower()),
        ("{claims}", "", ""),
    ],
)
def test_who_did_it(claims: Any, actor: str, identity: str) -> None:
    event = read({"claims": claims})
    assert (event.actor, event.identity) == (actor, identity)


@pytest.mark.parametrize("as_text", [False, True])
def test_without_a_claim_the_request_tells_the_address(as_text: bool) -> None:
    request = json.dumps(DATA["httpRequest"]) if as_text else DATA["httpRequest"]
    assert read({"claims": {}, "httpRequest": request}).source_ip == "203.0.113.9"
    assert read({"claims": {}, "httpRequest": None}).source_ip == ""


def test_what_stands_elsewhere_as_well_may_be_missing() -> None:
    event = read({"resourceUri": None, "subscriptionId": None, "operationName": None})
    assert event.resource == ACCOUNT.lower()
    assert event.account == SUBSCRIPTION.lower()
    assert event.operation == "Microsoft.Storage/storageAccounts/write"
    nothing = {"resourceUri": None, "subscriptionId": None}
    assert read(nothing, subject=None).account == SUBSCRIPTION.lower()
    assert read(nothing, subject=None).resource == ""
    whole = {"resourceUri": f"https://management.azure.com{ACCOUNT}/"}
    assert read(whole, subject=None).resource == ACCOUNT.lower()
    named = {"operationName": {"value": "Microsoft.Web/sites/write", "localizedValue": "x"}}
    assert read(named).operation == "Microsoft.Web/sites/write"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "body: is no JSON"),
        ("hello there", "body: is no JSON"),
        ("[]", "body: is an empty array"),
        ("[7]", "body: is no JSON object"),
        ("{}", "eventType: nothing is no change"),
        ('{"specversion": "1.0"}', "type: nothing is no change"),
        ("[" * 500 + "]" * 500, "body: is no JSON object"),
        (json.dumps({**EVENT, "data": None}), "data: is no JSON object"),
        (json.dumps({**EVENT, "data": {"x": json.loads("[" * 99 + "]" * 99)}}), "nested deeper"),
        (json.dumps({**EVENT, "id": None}), "id: is not there"),
        (json.dumps({**EVENT, "eventTime": "noon"}), "eventTime: noon is no moment"),
        (json.dumps({**CLOUD_EVENT, "time": None}), "time: nothing is no moment"),
        (
            json.dumps({**EVENT, "data": {"x": 1}, "subject": "", "topic": ""}),
            "data.subscriptionId: is not there",
        ),
        (json.dumps({**EVENT, "data": {"x": 1}}), "data.operationName: is not there"),
        (
            json.dumps([{**EVENT, "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent"}]),
            "eventType: Microsoft.EventGrid.SubscriptionValidationEvent is no change of a resource",
        ),
        (
            json.dumps({**CLOUD_EVENT, "type": "Microsoft.Storage.BlobCreated"}),
            "type: Microsoft.Storage.BlobCreated is no change of a resource",
        ),
    ],
)
def test_what_can_never_be_read_says_why(body: str, words: str) -> None:
    with pytest.raises(BadEvent) as refused:
        read_event_grid(body)
    assert words in str(refused.value)


# --- nothing crashes --------------------------------------------------------------------------

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(sent=JSON | st.dictionaries(st.sampled_from([*EVENT, *CLOUD_EVENT]), JSON))
def test_arbitrary_json_is_refused(sent: Any) -> None:
    with pytest.raises(BadEvent):
        read_event_grid(json.dumps(sent))


@settings(max_examples=300, deadline=None)
@given(data=st.data(), sample=st.sampled_from([EVENT, CLOUD_EVENT]))
def test_damaged_samples_are_read_or_refused(data: st.DataObject, sample: Any, damage: Any) -> None:
    body = json.dumps(data.draw(damage(sample)))
    try:
        (event,) = read_event_grid(body)
    except BadEvent:
        return
    assert event.id
    assert event.at.tzinfo is UTC
    assert event.account == event.account.lower() != ""
    assert event.resource == "" or event.resource.startswith("/")


@settings(max_examples=100, deadline=None)
@given(body=st.text() | st.text(alphabet='{}[]",:0aQ=', max_size=20))
def test_any_text_is_refused(body: str) -> None:
    with pytest.raises(BadEvent):
        read_event_grid(body)
