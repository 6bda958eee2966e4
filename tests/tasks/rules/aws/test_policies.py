"""Which statements let strangers in: by examples, and against the emulated IAM's own judgement."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local.aws.policy import Effect as Outcome
from deployments.local.aws.policy import (
    Request,
    evaluate_resource_policy,
    parse_resource_policy,
)
from tasks.errors import MissingData
from tasks.rules.aws.policies import in_words, lets_no_stranger_in, open_statements, without

QUEUE = "arn:aws:sqs:eu-central-1:111122223333:orders"
US = "111122223333"
ORG = "o-a1b2c3d4e5"


def allow(condition: Any = None, principal: Any = "*", **parts: Any) -> dict[str, Any]:
    statement = {
        "Effect": "Allow",
        "Principal": principal,
        "Action": "sqs:SendMessage",
        "Resource": QUEUE,
        **parts,
    }
    return statement if condition is None else {**statement, "Condition": condition}


def deny(condition: Any = None, **parts: Any) -> dict[str, Any]:
    return allow(condition, **{"Effect": "Deny", "Action": "sqs:*", **parts})


def policy(*statements: Any) -> dict[str, Any]:
    return {"Version": "2012-10-17", "Statement": list(statements)}


ROLE = f"arn:aws:iam::{US}:role/worker"

KNOWN = [
    {"StringEquals": {"aws:PrincipalOrgID": ORG}},
    {"stringequals": {"AWS:PRINCIPALORGID": [ORG, "o-z9y8x7w6v5"]}},
    {"StringEquals": {"aws:SourceAccount": US}},
    {"StringEquals": {"aws:SourceOwner": US}},
    {"StringLike": {"aws:SourceAccount": US}},
    {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": f"{ORG}/r-ab12/*"}},
    {"StringEquals": {"aws:PrincipalOrgID": "${aws:ResourceOrgID}"}},
    {"StringEquals": {"aws:ResourceAccount": "${aws:PrincipalAccount}"}},
    {"ArnLike": {"aws:SourceArn": f"arn:aws:sns:*:{US}:*"}},
    {"StringLike": {"aws:SourceArn": f"arn:aws:events:*:{US}:rule/*"}},
    {"ArnEquals": {"aws:SourceArn": "arn:aws:s3:::acme-uploads"}},
    {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:acme-uploads"}},
    {"ArnEquals": {"aws:PrincipalArn": [ROLE, f"arn:aws:iam::{US}:user/*"]}},
    {"StringLike": {"aws:userid": "AROAEXAMPLEID:*"}},
    {"StringEquals": {"aws:SourceVpce": "vpce-1a2b3c4d"}},
    {"StringEquals": {"aws:SourceVpc": ["vpc-11112222", "vpc-33334444"]}},
    {"StringEquals": {"aws:VpceOrgID": ORG}},
    {"IpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
    {"IpAddress": {"aws:SourceIp": ["198.51.100.7", "2001:db8::/32"]}},
    {"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}},
    {"Bool": {"aws:PrincipalIsAWSService": "true"}},
    {"StringEquals": {"aws:PrincipalServiceName": "cloudtrail.amazonaws.com"}},
    # Both hold at once: the weaker one takes nothing away.
    {"Bool": {"aws:SecureTransport": "true"}, "StringEquals": {"aws:SourceAccount": US}},
    {"StringEquals": {"aws:SourceAccount": US, "aws:PrincipalType": "User"}},
    # IfExists and ForAllValues tie once the key must be there.
    {
        "StringEqualsIfExists": {"aws:PrincipalOrgID": ORG},
        "Null": {"aws:PrincipalOrgID": "false"},
    },
    {
        "ForAllValues:StringLike": {"aws:PrincipalOrgPaths": [f"{ORG}/*"]},
        "Null": {"aws:PrincipalOrgPaths": False},
    },
]

STRANGERS = [
    None,
    {},
    {"Bool": {"aws:SecureTransport": "true"}},
    {"Bool": {"aws:MultiFactorAuthPresent": True}},
    {"StringLike": {"aws:PrincipalOrgID": "o-*"}},
    {"StringLike": {"aws:SourceAccount": "*"}},
    {"StringEquals": {"aws:SourceAccount": [US, "*"]}},
    {"StringLike": {"aws:SourceAccount": "11112222333?"}},
    {"ArnLike": {"aws:SourceArn": "*"}},
    {"ArnLike": {"aws:SourceArn": "arn:aws:sns:*:*:*"}},
    {"ArnLike": {"aws:SourceArn": ["arn:aws:sns:*:*:news", f"arn:aws:sns:*:{US}:news"]}},
    {"ArnLike": {"aws:SourceArn": "arn:aws:s3:::acme-*"}},
    {"ArnLike": {"aws:SourceArn": "arn:aws:s3:*:*:accesspoint/acme"}},
    {"ArnLike": {"aws:PrincipalArn": "arn:aws:iam::*:role/worker"}},
    {"StringLike": {"aws:userid": "*:session"}},
    {"StringEquals": {"aws:username": "bob"}},
    {"StringEquals": {"aws:PrincipalTag/team": "blue"}},
    {"StringEquals": {"aws:SourceAccount": "${aws:PrincipalAccount}"}},
    {"StringLike": {"aws:Referer": "https://example.com/*"}},
    {"StringNotEquals": {"aws:PrincipalAccount": "999999999999"}},
    {"NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}},
    {"StringEqualsIfExists": {"aws:PrincipalOrgID": ORG}},
    {"ForAllValues:StringEquals": {"aws:PrincipalOrgPaths": [f"{ORG}/"]}},
    {"IpAddressIfExists": {"aws:SourceIp": "203.0.113.0/24"}},
    {"Null": {"aws:SourceVpce": "false"}},
    {"Null": {"aws:PrincipalOrgID": "true"}, "StringEqualsIfExists": {"aws:PrincipalOrgID": ORG}},
    {"IpAddress": {"aws:SourceIp": "0.0.0.0/0"}},
    {"IpAddress": {"aws:SourceIp": ["0.0.0.0/1", "128.0.0.0/1"]}},
    {"IpAddress": {"aws:SourceIp": ["203.0.113.0/24", "::/0"]}},
    {"IpAddress": {"aws:SourceIp": ["8000::/1", "::/1"]}},
    {"IpAddress": {"aws:SourceIp": "64.0.0.0/2"}},
    {"IpAddress": {"aws:VpcSourceIp": "10.0.0.0/24"}},
    {"DateGreaterThan": {"aws:CurrentTime": "2020-01-01T00:00:00Z"}},
]


@pytest.mark.parametrize("condition", KNOWN, ids=json.dumps)
def test_a_condition_on_somebody_known_closes(condition: Any) -> None:
    assert lets_no_stranger_in(policy(allow(condition)))


@pytest.mark.parametrize("condition", STRANGERS, ids=json.dumps)
def test_a_condition_that_strangers_meet_does_not(condition: Any) -> None:
    assert open_statements(policy(allow(condition))) == [0]


@pytest.mark.parametrize(
    ("statement", "is_open"),
    [
        (allow(principal={"AWS": "*"}), True),
        (allow(principal={"AWS": [ROLE, "*"]}), True),
        (allow(principal={"AWS": [ROLE, US]}), False),
        (allow(principal={"Service": "sns.amazonaws.com"}), False),
        (allow(principal={"Service": "sns.amazonaws.com", "AWS": "*"}), True),
        (allow(principal={"Federated": "accounts.google.com"}), False),
        (allow(Action=["sqs:SendMessage", "sqs:ReceiveMessage"]), True),
        (deny(), False),
    ],
)
def test_principals(statement: Any, is_open: bool) -> None:
    assert bool(open_statements(policy(statement))) is is_open
    assert bool(open_statements({"Statement": statement})) is is_open, "one without a list"


def test_all_but_some() -> None:
    statement = allow()
    del statement["Principal"]
    assert open_statements(policy({**statement, "NotPrincipal": {"AWS": ROLE}})) == [0]
    assert lets_no_stranger_in(policy({**statement, "NotPrincipal": {"AWS": "*"}}))
    statement = allow()
    del statement["Action"]
    assert open_statements(policy({**statement, "NotAction": "sqs:DeleteQueue"})) == [0]
    assert lets_no_stranger_in(policy({**statement, "NotAction": "*"}))


NOT_US = {"StringNotEquals": {"aws:PrincipalOrgID": ORG}}


@pytest.mark.parametrize(
    ("denial", "is_open"),
    [
        (deny(NOT_US), False),
        (deny({"StringNotEqualsIfExists": {"aws:PrincipalOrgID": ORG}}), False),
        (deny({**NOT_US, "BoolIfExists": {"aws:PrincipalIsAWSService": "false"}}), False),
        (deny({**NOT_US, "NotIpAddress": {"aws:SourceIp": "203.0.113.0/24"}}), False),
        (deny({"StringNotEquals": {"aws:SourceVpce": "vpce-1a2b3c4d"}}), False),
        (deny({"ArnNotLike": {"aws:SourceArn": f"arn:aws:sns:*:{US}:*"}}), False),
        (deny(NOT_US, Action="*", Resource="*"), False),
        (deny(NOT_US, Action="SQS:Send*", Resource="arn:aws:sqs:*:*:or*"), False),
        (deny(), False),
        # It is about something else.
        (deny(NOT_US, Action="sqs:ReceiveMessage"), True),
        (deny(NOT_US, Resource="arn:aws:sqs:eu-central-1:111122223333:other"), True),
        (deny(NOT_US, Resource="arn:aws:sqs:eu-central-1:111122223333:Orders"), True),
        # It holds for some strangers only, or for those who are known.
        (deny(NOT_US, principal={"AWS": "arn:aws:iam::999999999999:root"}), True),
        (deny({"StringEquals": {"aws:PrincipalOrgID": ORG}}), True),
        (deny({"StringNotLike": {"aws:PrincipalOrgID": "*"}}), True),
        (deny({**NOT_US, "Bool": {"aws:SecureTransport": "false"}}), True),
        (deny({"ForAnyValue:StringNotLike": {"aws:PrincipalOrgPaths": f"{ORG}/*"}}), True),
        (deny({"Bool": {"aws:SecureTransport": "false"}}), True),
    ],
)
def test_a_deny_beside_it(denial: Any, is_open: bool) -> None:
    assert bool(open_statements(policy(allow(), denial))) is is_open
    assert bool(open_statements(policy(denial, allow()))) is is_open


def test_a_deny_that_spares_some_takes_from_all_others() -> None:
    spared = deny()
    del spared["Principal"]
    assert lets_no_stranger_in(policy(allow(), {**spared, "NotPrincipal": {"AWS": ROLE}}))
    assert not lets_no_stranger_in(policy(allow(), {**spared, "NotPrincipal": {"AWS": "*"}}))


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"Statement": "x"},
        {"Statement": [7]},
        policy(allow(Effect="Maybe")),
        policy(allow(principal=None)),
        policy(allow(principal="someone")),
        policy(allow(principal={"AWS": []})),
        policy(allow(principal={"AWS": [7]})),
        policy(allow(Action=None)),
        policy(allow(NotAction="sqs:*")),
        policy(allow(Condition=[])),
        policy(allow({"StringEquals": "x"})),
        policy(allow({"StringEquals": {"aws:SourceAccount": []}})),
        policy(allow({"StringEquals": {"aws:SourceAccount": {}}})),
    ],
)
def test_what_no_documentation_knows_is_missing(odd: Any) -> None:
    with pytest.raises(MissingData):
        open_statements(odd)


def test_only_open_statements_go() -> None:
    known, stranger, denial = allow(KNOWN[0]), allow(Sid="x"), deny(principal={"AWS": ROLE})
    whole = {"Id": "p", **policy(known, stranger, denial, stranger)}
    places = open_statements(whole)
    assert places == [1, 3]
    assert without(whole, places) == {"Id": "p", **policy(known, denial)}
    assert without(policy(stranger), [0]) is None
    assert in_words(stranger) == "lets everyone do sqs:SendMessage"


# --- against the emulated IAM -----------------------------------------------------------------

# Requests of somebody who is nobody to us, in the ways that requests can come in.
STRANGER = {
    "aws:principalaccount": ("999999999999",),
    "aws:principalarn": ("arn:aws:iam::999999999999:role/worker",),
    "aws:principalorgid": ("o-z0z0z0z0z0",),
    "aws:principalorgpaths": ("o-z0z0z0z0z0/r-zz99/",),
    "aws:userid": ("AROASTRANGER:session",),
    "aws:principalisawsservice": ("false",),
    "aws:username": ("bob",),
}
HERE = {
    "aws:resourceaccount": (US,),
    "aws:resourceorgid": (ORG,),
    "aws:securetransport": ("true",),
}
REQUESTS = [
    {**HERE, **STRANGER, "aws:sourceip": ("192.0.2.77",)},
    {**HERE, **STRANGER, "aws:sourceip": ("2a00:1450::1",)},
    {**HERE, "aws:sourceip": ("192.0.2.77",)},  # anonymous
    {**HERE, **STRANGER, "aws:sourcevpc": ("vpc-99990000",), "aws:sourcevpce": ("vpce-9999",)},
    {
        **HERE,
        "aws:sourcearn": ("arn:aws:sns:eu-central-1:999999999999:news",),
        "aws:sourceaccount": ("999999999999",),
        "aws:sourceip": ("192.0.2.77",),
    },
    {**HERE, "aws:sourcearn": ("arn:aws:s3:::acme-evil",), "aws:sourceip": ("192.0.2.77",)},
]

KEYS = {
    "aws:PrincipalAccount": [US, "1111*", "*", "${aws:ResourceAccount}"],
    "aws:PrincipalArn": [ROLE, "arn:aws:iam::*:role/worker", "*", f"arn:aws:iam::{US}:*"],
    "aws:PrincipalOrgID": [ORG, "o-*", "*", "${aws:ResourceOrgID}", "${aws:PrincipalOrgID}"],
    "aws:PrincipalOrgPaths": [f"{ORG}/*", f"{ORG}/r-ab12/", "*", "o-*/r-zz99/"],
    "aws:SourceArn": ["arn:aws:sns:*:*:*", f"arn:aws:sns:*:{US}:*", "arn:aws:s3:::acme-*", "*"],
    "aws:SourceAccount": [US, "*", "${aws:PrincipalAccount}"],
    "aws:SourceVpce": ["vpce-1a2b3c4d", "vpce-*"],
    "aws:userid": ["AROAEXAMPLEID:*", "*:session"],
    "aws:username": ["bob"],
    "aws:ResourceAccount": ["${aws:PrincipalAccount}", US],
}
NETWORKS = [
    ["203.0.113.0/24"],
    ["0.0.0.0/0"],
    ["0.0.0.0/1", "128.0.0.0/1"],
    ["::/0", "203.0.113.0/24"],
    ["2001:db8::/32"],
]
QUANTIFIERS = ["", "ForAllValues:", "ForAnyValue:"]
OPERATORS = ["StringEquals", "StringLike", "ArnLike", "StringNotEquals", "StringNotLike"]


@st.composite
def conditions(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["key", "key", "key", "ip", "null", "bool"]))
        if kind == "key":
            key = draw(st.sampled_from(sorted(KEYS)))
            values = draw(st.lists(st.sampled_from(KEYS[key]), min_size=1, max_size=2))
            operator = draw(st.sampled_from(OPERATORS))
            if operator == "ArnLike" and not key.endswith("Arn"):
                operator = "StringLike"
            operator = draw(st.sampled_from(QUANTIFIERS)) + operator
            operator += draw(st.sampled_from(["", "IfExists"]))
        elif kind == "ip":
            key, values = "aws:SourceIp", draw(st.sampled_from(NETWORKS))
            operator = draw(st.sampled_from(["IpAddress", "NotIpAddress", "IpAddressIfExists"]))
        elif kind == "null":
            key, operator = draw(st.sampled_from(sorted(KEYS))), "Null"
            values = [draw(st.sampled_from(["true", "false"]))]
        else:
            key = draw(st.sampled_from(["aws:SecureTransport", "aws:PrincipalIsAWSService"]))
            operator = draw(st.sampled_from(["Bool", "BoolIfExists"]))
            values = [draw(st.sampled_from(["true", "false"]))]
        made.setdefault(operator, {})[key] = values
    return made


@st.composite
def statements(draw: st.DrawFn) -> dict[str, Any]:
    made: dict[str, Any] = {"Effect": draw(st.sampled_from(["Allow", "Allow", "Deny"]))}
    principal = draw(st.sampled_from(["*", "*", {"AWS": [ROLE, "*"]}, {"AWS": ROLE}]))
    made[draw(st.sampled_from(["Principal", "Principal", "NotPrincipal"]))] = principal
    action = draw(
        st.sampled_from(["*", "sqs:*", "sqs:Send*", "sqs:SendMessage", "sqs:?endMessage"])
    )
    made[draw(st.sampled_from(["Action", "Action", "NotAction"]))] = action
    resource = draw(st.sampled_from(["*", QUEUE, "arn:aws:sqs:*:*:or*", f"{QUEUE}2"]))
    made[draw(st.sampled_from(["Resource", "Resource", "NotResource"]))] = resource
    if condition := draw(conditions()):
        made["Condition"] = condition
    return made


def lets_in(document: Any, context: Any) -> bool:
    """By the emulated IAM: the stranger sends or receives something, on this queue or another."""
    names = frozenset(context.get("aws:principalarn", ()))
    parsed = parse_resource_policy(json.dumps(document))
    return any(
        evaluate_resource_policy(parsed, Request(action, on, context, names)) is Outcome.ALLOWED
        for action in ("sqs:SendMessage", "sqs:ReceiveMessage")
        for on in (QUEUE, f"{QUEUE}2")
    )


@settings(max_examples=600, deadline=None)
@given(st.lists(statements(), min_size=1, max_size=3))
def test_no_stranger_gets_in_where_none_is_said_to(made: list[dict[str, Any]]) -> None:
    document = policy(*made)
    if lets_no_stranger_in(document):
        assert not any(lets_in(document, context) for context in REQUESTS)


@settings(max_examples=200, deadline=None)
@given(st.lists(statements(), min_size=1, max_size=4))
def test_what_is_left_lets_no_stranger_in_and_is_otherwise_the_same(
    made: list[dict[str, Any]],
) -> None:
    document = policy(*made)
    left = without(document, open_statements(document))
    assert lets_no_stranger_in(left)
    kept = left["Statement"] if left else []
    assert [one for one in made if one in kept] == kept
    assert [one for one in made if one["Effect"] == "Deny"] == [
        one for one in kept if one["Effect"] == "Deny"
    ]
