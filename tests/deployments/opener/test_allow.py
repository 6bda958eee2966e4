"""The customer's allow-list permits what it names, and nothing that looks like it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.opener.allow import Allowed, Wanted, objection
from tasks.model import Cloud

pytestmark = pytest.mark.attack

BUCKETS = Allowed(("1111*",), ("s3:PutBucket*",), ("arn:aws:s3:::acme-*",), minutes=10)
GROUPS = Allowed(
    ("*",),
    ("Microsoft.Network/networkSecurityGroups/securityRules/write",),
    ("/subscriptions/*/resourceGroups/dev/*",),
)
ENTRIES = (BUCKETS, GROUPS)
GOOD = Wanted(
    Cloud.AWS, "111122223333", ("arn:aws:s3:::acme-logs",), ("s3:PutBucketPolicy",), 10, "f00d"
)


def test_what_the_list_names_is_permitted() -> None:
    assert objection(GOOD, ENTRIES) == ""
    group = "/subscriptions/s/resourcegroups/DEV/providers/Microsoft.Network/x/y"
    asked = replace(
        GOOD,
        cloud=Cloud.AZURE,
        account="s",
        resources=(group,),
        actions=("microsoft.network/networksecuritygroups/securityrules/WRITE",),
    )
    assert objection(asked, ENTRIES) == ""


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"account": "444455556666"}, "not allowed"),
        ({"resources": ("arn:aws:s3:::other",)}, "not allowed"),
        ({"resources": ("arn:aws:s3:::ACME-logs",)}, "not allowed"),
        ({"resources": (*GOOD.resources, "arn:aws:s3:::other")}, "not allowed"),
        ({"resources": ("arn:aws:s3:::acme-*",)}, "no single"),
        ({"resources": ("arn:aws:s3:::acme-?",)}, "no single"),
        ({"resources": ("arn:aws:s3:::acme-[a]",)}, "no single"),
        ({"resources": ("arn:aws:s3:::acme-\n",)}, "no single"),
        ({"resources": ("arn:aws:s3:::acme-x/../y",)}, "no single"),
        ({"actions": ("iam:CreateUser",)}, "iam:CreateUser"),
        ({"actions": (*GOOD.actions, "s3:DeleteBucket")}, "s3:DeleteBucket"),
        ({"actions": ("s3:*",)}, "no single"),
        ({"actions": ("*",)}, "no single"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": -1}, "minutes"),
        ({"minutes": 11}, "not allowed"),
        ({"minutes": 16}, "1 to 15"),
    ],
)
def test_what_it_does_not_name_is_refused_in_words(changes: dict[str, object], said: str) -> None:
    assert said in objection(replace(GOOD, **changes), ENTRIES)  # type: ignore[arg-type]


def test_an_action_of_one_entry_does_not_reach_the_resource_of_another() -> None:
    entries = (
        Allowed(("*",), ("s3:PutBucketPolicy",), ("arn:aws:s3:::logs",)),
        Allowed(("*",), ("s3:DeleteBucketPolicy",), ("arn:aws:s3:::scratch",)),
    )
    both = replace(
        GOOD,
        actions=("s3:PutBucketPolicy", "s3:DeleteBucketPolicy"),
        resources=("arn:aws:s3:::logs", "arn:aws:s3:::scratch"),
    )
    assert "not allowed" in objection(both, entries)


def test_an_empty_list_permits_nothing() -> None:
    assert "not allowed" in objection(GOOD, ())


def test_no_entry_grants_more_than_a_quarter_of_an_hour() -> None:
    entry = replace(BUCKETS, minutes=600)
    assert "1 to 15" in objection(replace(GOOD, minutes=16), (entry,))


@given(st.text(min_size=1, max_size=30))
def test_only_resources_under_the_prefix_pass(name: str) -> None:
    asked = replace(GOOD, resources=(name,))
    if objection(asked, ENTRIES) == "":
        assert name.startswith("arn:aws:s3:::acme-")
