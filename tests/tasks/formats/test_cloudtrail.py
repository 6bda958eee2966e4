"""CloudTrail's records are read as EventBridge and SNS deliver them, and nothing crashes on any."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import BadEvent
from tasks.formats.cloudtrail import read_cloudtrail
from tasks.formats.sent import NOT_KEPT
from tasks.model import Cloud

ACCOUNT = "111122223333"
ROLE = f"arn:aws:iam::{ACCOUNT}:role/platform/Deployer"
SESSION = f"arn:aws:sts::{ACCOUNT}:assumed-role/Deployer/ann@example.com"
RECORD: dict[str, Any] = {
    "eventVersion": "1.11",
    "userIdentity": {
        "type": "AssumedRole",
        "principalId": "AROAEXAMPLE:ann@example.com",
        "arn": SESSION,
        "accountId": ACCOUNT,
        "sessionContext": {
            "sessionIssuer": {
                "type": "Role",
                "principalId": "AROAEXAMPLE",
                "arn": ROLE,
                "accountId": ACCOUNT,
                "userName": "Deployer",
            },
            "attributes": {"creationDate": "2026-03-01T11:40:00Z", "mfaAuthenticated": "false"},
        },
    },
    "eventTime": "2026-03-01T12:00:00Z",
    "eventSource": "ec2.amazonaws.com",
    "eventName": "AuthorizeSecurityGroupIngress",
    "awsRegion": "eu-central-1",
    "sourceIPAddress": "198.51.100.7",
    "userAgent": "aws-cli/2.17.0",
    "requestParameters": {
        "groupId": "sg-0123456789abcdef0",
        "ipPermissions": {
            "items": [
                {
                    "ipProtocol": "tcp",
                    "fromPort": 22,
                    "toPort": 22,
                    "groups": {},
                    "ipRanges": {"items": [{"cidrIp": "0.0.0.0/0"}]},
                }
            ]
        },
    },
    "responseElements": {"requestId": "r-1", "_return": True},
    "requestID": "r-1",
    "eventID": "0b6a1f0e-7a0e-4a9e-9a57-0d2a4d2d7c11",
    "readOnly": False,
    "eventType": "AwsApiCall",
    "managementEvent": True,
    "recipientAccountId": ACCOUNT,
    "eventCategory": "Management",
    "tlsDetails": {"tlsVersion": "TLSv1.3"},
}
ENVELOPE: dict[str, Any] = {
    "version": "0",
    "id": "6f3a9f52-1d3f-9c0e-1d8e-2f7c6f1f4a10",
    "detail-type": "AWS API Call via CloudTrail",
    "source": "aws.ec2",
    "account": ACCOUNT,
    "time": "2026-03-01T12:00:01Z",
    "region": "eu-central-1",
    "resources": [],
    "detail": RECORD,
}


def read(record: Any = None, **changed: Any) -> Any:
    """The sample with ``changed`` fields in its record; None takes one out."""
    whole = {**RECORD, **(record or {}), **changed}
    detail = {name: said for name, said in whole.items() if said is not None}
    return read_cloudtrail(json.dumps({**ENVELOPE, "detail": detail}))


def test_the_envelope_of_eventbridge_is_read() -> None:
    event = read_cloudtrail(json.dumps(ENVELOPE))
    assert event.cloud is Cloud.AWS
    assert event.id == RECORD["eventID"]
    assert (event.account, event.region) == (ACCOUNT, "eu-central-1")
    assert event.operation == "ec2:AuthorizeSecurityGroupIngress"
    assert event.at == datetime(2026, 3, 1, 12, tzinfo=UTC)
    assert (event.actor, event.identity) == (SESSION, ROLE)
    assert (event.source_ip, event.user_agent) == ("198.51.100.7", "aws-cli/2.17.0")
    assert (event.read_only, event.failure, event.resource) == (False, "", "")
    assert event.details == {
        "requestParameters": RECORD["requestParameters"],
        "responseElements": RECORD["responseElements"],
    }
    assert event.original == ENVELOPE


def test_a_notification_of_sns_and_a_bare_record_say_the_same() -> None:
    notification = {
        "Type": "Notification",
        "MessageId": "m-1",
        "TopicArn": f"arn:aws:sns:eu-central-1:{ACCOUNT}:trail",
        "Message": json.dumps(ENVELOPE),
        "Timestamp": "2026-03-01T12:00:02.000Z",
    }
    whole = read_cloudtrail(json.dumps(ENVELOPE))
    assert read_cloudtrail(json.dumps(notification)) == whole
    bare = read_cloudtrail(json.dumps(RECORD))
    assert bare.original == RECORD
    assert (bare.id, bare.account, bare.region) == (whole.id, whole.account, whole.region)


@pytest.mark.parametrize(
    ("source", "name", "operation"),
    [
        ("lambda.amazonaws.com", "AddPermission20150331v2", "lambda:AddPermission20150331v2"),
        ("elasticloadbalancing.amazonaws.com", "ModifyListener", None),
        ("access-analyzer.amazonaws.com", "CreateAnalyzer", None),
        ("s3express.amazonaws.com", "CreateBucket", "s3express:CreateBucket"),
        ("es.amazonaws.com", "CreateDomain", "es:CreateDomain"),
        ("odd", "Thing", "odd:Thing"),
    ],
)
def test_operations_are_spelled_as_the_rule_table_does(
    source: str, name: str, operation: str | None
) -> None:
    event = read(eventSource=source, eventName=name)
    assert event.operation == (operation or f"{source.split('.')[0]}:{name}")


def test_the_account_is_the_one_whose_log_it_is() -> None:
    other = {"userIdentity": {"type": "AWSAccount", "accountId": "444455556666"}}
    assert read(other).account == ACCOUNT
    assert read(other, recipientAccountId=None).account == ACCOUNT
    bare = {**RECORD, **other}
    del bare["recipientAccountId"]
    assert read_cloudtrail(json.dumps(bare)).account == "444455556666"
    assert read(recipientAccountId="odd").account == ACCOUNT


@pytest.mark.parametrize(
    ("who", "actor", "identity"),
    [
        (
            {"type": "IAMUser", "arn": f"arn:aws:iam::{ACCOUNT}:user/jo", "userName": "jo"},
            f"arn:aws:iam::{ACCOUNT}:user/jo",
            f"arn:aws:iam::{ACCOUNT}:user/jo",
        ),
        (
            {"type": "AWSService", "invokedBy": "autoscaling.amazonaws.com"},
            "autoscaling.amazonaws.com",
            "",
        ),
        ({"type": "SAMLUser", "principalId": "x:ann", "userName": "ann"}, "x:ann", ""),
        ({"type": "Unknown"}, "Unknown", ""),
        ({"arn": SESSION, "sessionContext": None}, SESSION, SESSION),
        ({"arn": SESSION, "sessionContext": {"attributes": {}}}, SESSION, SESSION),
        (None, "", ""),
        ("odd", "", ""),
    ],
)
def test_who_did_it(who: Any, actor: str, identity: str) -> None:
    event = read({"userIdentity": who})
    assert (event.actor, event.identity) == (actor, identity)


@pytest.mark.parametrize(
    ("said", "read_only"),
    [(True, True), ("true", True), (False, False), ("false", False), (None, False)],
)
def test_reads_are_told(said: Any, read_only: bool) -> None:
    assert read({"readOnly": said}).read_only is read_only


def test_failures_are_told_in_short() -> None:
    assert read(errorCode="Client.UnauthorizedOperation").failure == "Client.UnauthorizedOperation"
    long = read(errorCode="AccessDenied", errorMessage="not\nallowed " * 200).failure
    assert long.startswith("AccessDenied: not allowed not")
    assert len(long) == 300
    assert "\n" not in long


def test_null_and_left_out_parameters_are_no_details() -> None:
    event = read({"requestParameters": None, "responseElements": None, "readOnly": None})
    assert event.details == {}
    cut = {"omitted": True, "originalSize": 149893, "reason": "requestParameters too large"}
    assert read(requestParameters=cut).details["requestParameters"] == cut
    listed = [{"ARN": f"arn:aws:kms:eu-central-1:{ACCOUNT}:key/1", "accountId": ACCOUNT}]
    assert read(resources=listed).details["resources"] == listed


def test_fields_of_other_versions_and_services_do_no_harm() -> None:
    event = read(eventVersion="1.02", brandNew={"a": [1]}, tlsDetails=None, userAgent=None)
    assert event.user_agent == ""
    assert event.original["detail"]["brandNew"] == {"a": [1]}
    service = {**ENVELOPE, "detail-type": "AWS Service Event via CloudTrail"}
    assert read_cloudtrail(json.dumps(service)).id == RECORD["eventID"]


def test_secrets_are_not_kept() -> None:
    asked = {
        "dBInstanceIdentifier": "orders",
        "masterUserPassword": "correct horse",
        "parameters": [{"parameterKey": "Token", "parameterValue": "battery staple"}],
        "origins": {"items": [{"customHeaders": {"items": [{"headerValue": "hush-hush"}]}}]},
        "password": "",
    }
    event = read(requestParameters=asked)
    assert event.details["requestParameters"]["masterUserPassword"] == NOT_KEPT
    assert event.details["requestParameters"]["password"] == ""
    for secret in ("correct horse", "battery staple", "hush-hush"):
        assert secret not in repr(event)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("", "body: is no JSON"),
        ("no json", "body: is no JSON"),
        ("[]", "body: is no JSON object"),
        ("7", "body: is no JSON object"),
        ("{}", "eventName: is not there"),
        ("[" * 500 + "]" * 500, "nested deeper"),
        (json.dumps({**ENVELOPE, "detail-type": "Scheduled Event"}), "Scheduled Event is no API"),
        (
            json.dumps({**ENVELOPE, "detail-type": "EC2 Instance State-change Notification"}),
            "detail-type: EC2 Instance State-change Notification is no API call",
        ),
        (json.dumps({**ENVELOPE, "detail": None}), "detail: is no JSON object"),
        (json.dumps({**ENVELOPE, "detail": []}), "detail: is no JSON object"),
        (json.dumps({"Type": "SubscriptionConfirmation", "TopicArn": "t"}), "Confirm the subs"),
        (json.dumps({"Type": "Notification", "TopicArn": "t", "Message": "hi"}), "Message: is no"),
        (json.dumps({"Type": "Notification", "TopicArn": "t"}), "Message: is no JSON"),
        (json.dumps({"Service": "Amazon S3", "Event": "s3:TestEvent"}), "eventName: is not there"),
    ],
)
def test_what_can_never_be_read_says_why(body: str, words: str) -> None:
    with pytest.raises(BadEvent) as refused:
        read_cloudtrail(body)
    assert words in str(refused.value)


@pytest.mark.parametrize("field", ["eventID", "eventName", "eventSource"])
@pytest.mark.parametrize("said", [None, "", 7, [], {}])
def test_a_record_without_what_it_needs_names_the_field(field: str, said: Any) -> None:
    with pytest.raises(BadEvent) as refused:
        read({field: said})
    assert refused.value.field == field
    assert "deployments/aws" in refused.value.fix


def test_what_the_envelope_knows_as_well_may_be_missing() -> None:
    event = read({"awsRegion": None, "eventTime": None, "recipientAccountId": None})
    assert (event.account, event.region) == (ACCOUNT, "eu-central-1")
    assert event.at == datetime(2026, 3, 1, 12, 0, 1, tzinfo=UTC)
    for field in ("awsRegion", "eventTime", "recipientAccountId"):
        bare = {name: said for name, said in RECORD.items() if name not in (field, "userIdentity")}
        with pytest.raises(BadEvent) as refused:
            read_cloudtrail(json.dumps(bare))
        assert refused.value.field == field
    with pytest.raises(BadEvent, match="yesterday is no moment"):
        read(eventTime="yesterday")


# --- nothing crashes --------------------------------------------------------------------------

JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)


@settings(max_examples=200, deadline=None)
@given(sent=JSON | st.dictionaries(st.sampled_from([*ENVELOPE, *RECORD, "Type"]), JSON))
def test_arbitrary_json_is_read_or_refused(sent: Any) -> None:
    with pytest.raises(BadEvent):
        read_cloudtrail(json.dumps(sent))


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_damaged_samples_are_read_or_refused(data: st.DataObject, damage: Any) -> None:
    body = json.dumps(data.draw(damage(ENVELOPE)))
    try:
        event = read_cloudtrail(body)
    except BadEvent:
        return
    assert event.id
    assert event.at.tzinfo is UTC
    assert len(event.account) == 12
    assert ":" in event.operation


@settings(max_examples=100, deadline=None)
@given(body=st.text() | st.text(alphabet='{}[]",:0', max_size=20))
def test_any_text_is_read_or_refused(body: str) -> None:
    with pytest.raises(BadEvent):
        read_cloudtrail(body)
