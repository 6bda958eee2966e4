"""The fix of every AWS row, as the emulated cloud tells of it: under a name that the row waits for,
let through by what customers deploy, and leading back to what was fixed.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import pytest
from botocore import xform_name
from moto.core.utils import get_service_model

from deployments.local.aws.event_bridge import wanted
from deployments.local.aws.trail import event_name, is_write
from tasks.clouds.aws_write import _with_what_was_made
from tasks.clouds.events import targets_of, watched_operations
from tasks.formats.cloudtrail import read_cloudtrail
from tasks.model import Cloud, Resource, Rule
from tasks.rules import RULES

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Customer, Gated

pytestmark = pytest.mark.slow

AWS = [row for row in RULES if row.cloud is Cloud.AWS]
WATCHED = set(watched_operations(Cloud.AWS))
# Told of by a user's name, where scans have its ARN with its path: about all users.
VAGUE = {"aws_iam_user_keys_rotated", "aws_iam_user_keys_used"}
# botocore's names of APIs that are not what they sign with.
MODELS = {
    "access-analyzer": "accessanalyzer",
    "elasticfilesystem": "efs",
    "elasticloadbalancing": "elbv2",
}
# Made by AWS itself, when the time has come.
NO_CALL = {"kms:DeleteKey"}


def fix(customer: Customer, row: Rule, resource: Resource, values: Mapping[str, Any]) -> None:
    """The fix's calls, by the customer's administrator."""
    said: dict[str, Any] = {}
    assert row.fix is not None
    for step in row.fix(resource, values):
        call = step.call
        params = _with_what_was_made(call, said, resource.etag)
        said |= getattr(customer.client(call.service), xform_name(call.operation))(**params)


def test_every_watched_event_is_what_some_write_is_told_of_as() -> None:
    told = set()
    signing = {one.partition(":")[0] for one in WATCHED}
    for model in {MODELS.get(one, one) for one in signing} | {"elb", "opensearch", "s3control"}:
        known = get_service_model(model)
        service = known.signing_name
        told |= {
            f"{service}:{event_name(service, model, one)}"
            for one in known.operation_names
            if is_write(service, model, one)
        }
    assert WATCHED - told == NO_CALL


@pytest.mark.parametrize("row", [one for one in AWS if one.fix], ids=lambda one: one.id)
def test_a_fix_is_told_of_and_leads_back_to_what_was_fixed(
    row: Rule, table: Any, gated: Gated, customer: Customer
) -> None:
    finding = customer.plant(table, row, table.examples[row.id][1][0])
    resource = gated.read(finding)
    gated.aws.bridge.events.clear()
    fix(customer, row, resource, table.values(row))
    told = list(gated.aws.bridge.events)
    events = [(wanted(one), read_cloudtrail(json.dumps(one))) for one in told]
    waited_for = [
        (comes, one) for comes, one in events if one.operation in row.events and not one.failure
    ]
    assert waited_for, [one.operation for _, one in events]
    for comes, event in waited_for:
        assert comes
        found = [one for one in targets_of(event) if one.kind == row.kind]
        assert {(one.account, one.region) for one in found} == {(resource.account, resource.region)}
        assert {one.resource for one in found} == {"" if row.id in VAGUE else resource.id}
