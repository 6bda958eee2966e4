"""CloudTrail's record of one API call, as EventBridge delivers it, into a control-plane event."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import BadEvent
from tasks.formats.event import ControlPlaneEvent
from tasks.formats.sent import json_of, kept, moment_of, object_of, short, words_of
from tasks.model import Cloud

# "AWS API Call via CloudTrail"; a service's own doings come as "AWS Service Event via CloudTrail".
_FROM_CLOUDTRAIL = "via CloudTrail"
_LONGEST_REASON = 300
_FIX = "Send this queue nothing but what CloudTrail reports of API calls (deployments/aws)."
# Where the log tells of a call. A field that is too large is {"omitted": true, …} in its place.
_TELLING = ("requestParameters", "responseElements", "resources", "serviceEventDetails")


def read_cloudtrail(body: str) -> ControlPlaneEvent:
    """The event in one message: EventBridge's envelope, that in a notification of SNS, or bare.

    Raises BadEvent for what no later try could read either.
    """
    sent = kept(_from_sns(json_of(body, "body")), "body")
    if not isinstance(sent, dict):
        raise BadEvent("body", "is no JSON object.", _FIX)
    envelope, record = _opened(sent)
    source, name = words_of(record.get("eventSource")), words_of(record.get("eventName"))
    for field, found in (("eventName", name), ("eventSource", source)):
        if not found:
            raise BadEvent(field, "is not there: this is no record of CloudTrail.", _FIX)
    who = object_of(record.get("userIdentity"))
    return ControlPlaneEvent(
        cloud=Cloud.AWS,
        id=_needed(record, "eventID"),
        account=_account(envelope, record, who),
        region=words_of(record.get("awsRegion")) or _needed(envelope, "region", "awsRegion"),
        operation=f"{source.partition('.')[0]}:{name}",
        at=moment_of(record.get("eventTime") or envelope.get("time"), "eventTime"),
        actor=_actor(who),
        identity=_identity(who),
        source_ip=words_of(record.get("sourceIPAddress")),
        user_agent=words_of(record.get("userAgent")),
        read_only=record.get("readOnly") in (True, "true", "True"),
        failure=_failure(record),
        details={one: record[one] for one in _TELLING if record.get(one)},
        original=sent,
    )


def _from_sns(sent: Any) -> Any:
    """What SNS carried, where it did; other things than notifications it does not carry."""
    if not isinstance(sent, dict) or "TopicArn" not in sent or "Type" not in sent:
        return sent
    if sent["Type"] != "Notification":
        problem = f"is SNS's own {short(str(sent['Type']))}, which carries no event."
        raise BadEvent("Type", problem, "Confirm the subscription of the queue to the topic.")
    return json_of(words_of(sent.get("Message")), "Message")


def _opened(sent: Mapping[str, Any]) -> tuple[Mapping[str, Any], Mapping[str, Any]]:
    """EventBridge's envelope, empty where there is none, and CloudTrail's record in it."""
    if "detail-type" not in sent and "detail" not in sent:
        return {}, sent
    kind = words_of(sent.get("detail-type"))
    if not kind.endswith(_FROM_CLOUDTRAIL):
        problem = f"{short(kind) or 'nothing'} is no API call that CloudTrail reports."
        raise BadEvent("detail-type", problem, _FIX)
    record = object_of(sent.get("detail"))
    if not record:
        raise BadEvent("detail", "is no JSON object, or an empty one.", _FIX)
    return sent, record


def _needed(record: Mapping[str, Any], field: str, named: str = "") -> str:
    found = words_of(record.get(field))
    if not found:
        raise BadEvent(named or field, "is not there, or is no text.", _FIX)
    return found


def _account(envelope: Mapping[str, Any], record: Mapping[str, Any], who: Mapping[str, Any]) -> str:
    """Whose log it stands in; a call from another account is still about this one."""
    for said in (record.get("recipientAccountId"), envelope.get("account"), who.get("accountId")):
        number = words_of(said)
        if len(number) == 12 and number.isascii() and number.isdigit():
            return number
    raise BadEvent("recipientAccountId", "is no account number of 12 digits.", _FIX)


def _actor(who: Mapping[str, Any]) -> str:
    fields = ("arn", "invokedBy", "principalId", "userName", "accountId", "type")
    return next((said for one in fields if (said := words_of(who.get(one)))), "")


def _identity(who: Mapping[str, Any]) -> str:
    issuer = object_of(object_of(who.get("sessionContext")).get("sessionIssuer"))
    return words_of(issuer.get("arn")) or words_of(who.get("arn"))


def _failure(record: Mapping[str, Any]) -> str:
    said = (words_of(record.get("errorCode")), words_of(record.get("errorMessage")))
    return short(": ".join(one for one in said if one), _LONGEST_REASON)
