"""What is to be done about an event: nothing, with why, or resources to be read again."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from tasks.errors import BadEvent
from tasks.formats.event import ControlPlaneEvent, Target
from tasks.inventory import AwsSource, AzureSource
from tasks.model import Cloud
from tasks.reacting.decision import Why, decide, read_message

ACCOUNT, REGION = "111122223333", "eu-central-1"
NOW = datetime(2026, 11, 26, 12, tzinfo=UTC)
SUBSCRIPTION = "0f8b0f2c-1111-4222-8333-444455556666"
NSG = (
    f"/subscriptions/{SUBSCRIPTION}/resourcegroups/net/providers"
    "/microsoft.network/networksecuritygroups/edge"
)
ACME = AwsSource(name="acme", regions=(REGION,), external_id="x", organization=True)
CONTOSO = AzureSource(
    name="contoso",
    tenant="t",
    client_id="scanner",
    client_secret_env="SECRET",
    remediator_client_id="ABC-remediator",
)
KINDS = {"aws.ec2.security_group", "azure.network.security_group", "aws.iam.password_policy"}


def on_aws(operation: str = "ec2:AuthorizeSecurityGroupIngress", **more: Any) -> ControlPlaneEvent:
    known: dict[str, Any] = {
        "account": ACCOUNT,
        "region": REGION,
        "identity": f"arn:aws:iam::{ACCOUNT}:user/ada",
        "details": {"requestParameters": {"groupId": "sg-1"}},
    }
    return ControlPlaneEvent(
        cloud=Cloud.AWS, id="a", operation=operation, at=NOW, **{**known, **more}
    )


def on_azure(**more: Any) -> ControlPlaneEvent:
    known: dict[str, Any] = {
        "operation": "Microsoft.Network/networkSecurityGroups/securityRules/write",
        "resource": f"{NSG}/securityrules/open-ssh",
    }
    return ControlPlaneEvent(
        cloud=Cloud.AZURE, id="b", account=SUBSCRIPTION, at=NOW, **{**known, **more}
    )


def test_a_change_is_about_the_resource_as_scans_know_it() -> None:
    decision = decide(on_aws(), ACME, KINDS)
    group = f"arn:aws:ec2:{REGION}:{ACCOUNT}:security-group/sg-1"
    assert decision.why is Why.TAKEN
    assert decision.targets == (
        Target(Cloud.AWS, ACCOUNT, REGION, "aws.ec2.security_group", group),
    )
    decision = decide(on_azure(), CONTOSO, KINDS)
    assert decision.why is Why.TAKEN
    assert decision.targets == (
        Target(Cloud.AZURE, SUBSCRIPTION, "global", "azure.network.security_group", NSG),
    )


ROLE = f"arn:aws:iam::{ACCOUNT}:role/{ACME.remediator_role}"


@pytest.mark.parametrize(
    ("event", "source", "why"),
    [
        (on_aws(read_only=True), ACME, Why.READ),
        (on_aws(failure="Client.UnauthorizedOperation"), ACME, Why.FAILED_CALL),
        (on_azure(failure="Failed"), CONTOSO, Why.FAILED_CALL),
        (on_aws(identity=ROLE), ACME, Why.OWN_WRITE),
        (on_azure(identity="abc-remediator"), CONTOSO, Why.OWN_WRITE),
        (on_aws("ec2:CreateTags"), ACME, Why.NOT_WATCHED),
        (on_aws(region="us-west-2"), ACME, Why.NOT_WATCHED),
        (on_aws(account="999988887777"), replace(ACME, accounts=(ACCOUNT,)), Why.NOT_WATCHED),
        (on_azure(), replace(CONTOSO, subscriptions=("another",)), Why.NOT_WATCHED),
    ],
)
def test_what_can_have_changed_no_verdict_is_passed_over(
    event: ControlPlaneEvent, source: AwsSource | AzureSource, why: Why
) -> None:
    decision = decide(event, source, KINDS)
    assert (decision.why, decision.targets) == (why, ())


def test_what_no_rule_in_force_is_about_is_passed_over() -> None:
    assert decide(on_aws(), ACME, {"aws.s3.bucket"}).why is Why.NOT_WATCHED


def test_a_listed_account_is_the_sources() -> None:
    assert decide(on_aws(), replace(ACME, accounts=(ACCOUNT,)), KINDS).why is Why.TAKEN
    listed = replace(CONTOSO, subscriptions=(SUBSCRIPTION,))
    assert decide(on_azure(), listed, KINDS).why is Why.TAKEN


def test_what_has_no_region_is_read_whatever_regions_are_scanned() -> None:
    event = on_aws("iam:UpdateAccountPasswordPolicy", region="us-east-1", details={})
    decision = decide(event, ACME, KINDS)
    assert decision.why is Why.TAKEN
    assert [one.region for one in decision.targets] == ["global"]


def test_a_queue_carries_its_own_clouds_events_only() -> None:
    body = json.dumps(
        {
            "id": "1",
            "eventType": "Microsoft.Resources.ResourceWriteSuccess",
            "eventTime": "2026-11-26T12:00:00Z",
            "subject": NSG,
            "data": {
                "operationName": "Microsoft.Network/networkSecurityGroups/write",
                "resourceUri": NSG,
                "status": "Succeeded",
            },
        }
    )
    (event,) = read_message(CONTOSO, body)
    assert (event.cloud, event.resource) == (Cloud.AZURE, NSG)
    with pytest.raises(BadEvent):
        read_message(ACME, body)
    with pytest.raises(BadEvent):
        read_message(CONTOSO, "no JSON")
