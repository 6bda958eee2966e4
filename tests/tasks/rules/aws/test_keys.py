"""KMS keys that approvers name: what is taken, what not, and what the fixes make of them."""

from __future__ import annotations

from typing import Any

import pytest

from tasks.errors import BadAnswer, BadInput
from tasks.model import Cloud, Config, Resource
from tasks.rules import RULES, rule
from tasks.rules.aws.keys import key_input, wanted_key

ID = "1234abcd-12ab-34cd-56ef-1234567890ab"


@pytest.mark.parametrize(
    "named",
    [
        ID,
        "mrk-1234abcd12ab34cd56ef1234567890ab",
        "alias/aws/kinesis",
        "alias/team/orders-2",
        f"arn:aws:kms:eu-central-1:111122223333:key/{ID}",
        "arn:aws-cn:kms:cn-north-1:111122223333:alias/orders",
    ],
)
def test_names_of_keys(named: str) -> None:
    assert wanted_key({"kms_key": named}, key_input()) == named


@pytest.mark.parametrize(
    "named",
    ["orders", "alias/?", f"{ID}\n", "arn:aws:s3:::logs", "alias/a b", "secret-value", 7, ["x"]],
)
def test_what_names_no_key_is_refused_and_not_repeated(named: Any) -> None:
    with pytest.raises(BadAnswer) as caught:
        wanted_key({"kms_key": named}, key_input("alias/default"))
    assert str(named) not in str(caught.value)


def test_without_an_answer() -> None:
    assert wanted_key({}, key_input("alias/default")) == "alias/default"
    assert wanted_key({"kms_key": ""}, key_input(empty="the service's own")) == ""
    with pytest.raises(BadAnswer):
        wanted_key({"kms_key": ""}, key_input(required=True))


@pytest.mark.parametrize(
    "row",
    [one for one in RULES if any(i.name == "kms_key" for i in one.inputs)],
    ids=lambda r: r.id,
)
def test_every_fix_with_a_key_uses_the_one_that_was_named(
    row: Any, table: Any, apply: Any, undo: Any, snapshot: Any
) -> None:
    for config in table.examples[row.id][1]:
        before = table.resource(row, config)
        steps = row.fix(before, {"kms_key": ID})
        assert ID in str(steps[0].call.params)
        assert any(ID in change.after for step in steps for change in step.changes)
        after = apply(before, steps)
        assert row.judge(after)[0] == "pass"
        assert snapshot(undo(after, steps)) == snapshot(before)
        with pytest.raises(BadAnswer):
            row.fix(before, {"kms_key": "no key"})


def table_of(**description: Any) -> Resource:
    found = {"SSEDescription": description or None, "Replicas": ["eu-west-1"]}
    return Resource(
        cloud=Cloud.AWS,
        account="111122223333",
        region="eu-central-1",
        kind="aws.dynamodb.table",
        id="arn:aws:dynamodb:eu-central-1:111122223333:table/orders",
        name="orders",
        config=Config({"TableName": "orders", "Encryption": found}),
    )


def test_a_table_whose_key_is_being_changed_is_not_judged() -> None:
    row = rule("aws_dynamodb_table_encrypted_with_kms")
    assert row.judge(table_of(Status="UPDATING", SSEType="KMS"))[0] == "unknown"
    assert row.judge(table_of(Status="ENABLED", SSEType="KMS"))[0] == "pass"
    assert row.judge(table_of(Status="ENABLED", SSEType="AES256"))[0] == "fail"


def test_a_global_table_is_left_to_people() -> None:
    row = rule("aws_dynamodb_table_encrypted_with_kms")
    assert row.fix is not None
    with pytest.raises(BadInput, match="replicas"):
        row.fix(table_of(), {})
