"""What makes events reach Suture: made from the rules, committed as made, and no wider."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest
import typer
from cfnlint.api import ManualArgs, lint
from moto import mock_aws
from moto.events.models import EventPattern
from typer.testing import CliRunner

from deployments.cli import Commands
from deployments.event_rules import (
    MOST_FILTER_VALUES,
    MOST_PATTERN_CHARACTERS,
    PARTS,
    Part,
    event_patterns,
    event_template,
    event_template_text,
    filter_values,
    watched_operations,
)
from deployments.react_cli import react_app
from tasks.model import Cloud
from tasks.rules import RULES, rules_of

FOLDER = Path(__file__).parents[2] / "deployments"
EVERY = pytest.mark.parametrize(
    ("cloud", "part", "file"),
    [
        (cloud, part, FOLDER / cloud.value / name)
        for cloud, parts in PARTS.items()
        for part, name in parts.items()
    ],
)
MADE = pytest.mark.parametrize(
    ("cloud", "part"), [(Cloud.AWS, Part.MEMBER), (Cloud.AZURE, Part.SUBSCRIPTION)]
)
# "AWS CloudFormation quotas": a template that is sent and not put into a bucket first; and how many
# rules an event bus has before anybody asks for more.
MOST_TEMPLATE_BYTES, MOST_RULES = 51_200, 300

app = typer.Typer(cls=Commands)
app.add_typer(react_app, name="react")


def patterns() -> list[dict[str, Any]]:
    """The event patterns of the member's template."""
    resources = event_template(Cloud.AWS, Part.MEMBER)["Resources"].values()
    return [
        one["Properties"]["EventPattern"] for one in resources if one["Type"] == "AWS::Events::Rule"
    ]


def matching(event: Mapping[str, Any]) -> int:
    """How many of the member's rules would send this event on."""
    return sum(
        EventPattern.load(json.dumps(pattern)).matches_event(event) for pattern in patterns()
    )


def api_call(operation: str, **detail: Any) -> dict[str, Any]:
    """A call as CloudTrail tells EventBridge of it."""
    service, _, name = operation.partition(":")
    return {
        "version": "0",
        "id": "0f9c1d7e-8a55-4f0e-a3f7-3f1f5a3b9c11",
        "detail-type": "AWS API Call via CloudTrail",
        "source": f"aws.{service}",
        "account": "111122223333",
        "time": "2026-11-20T10:15:30Z",
        "region": "eu-central-1",
        "resources": [],
        "detail": {
            "eventVersion": "1.09",
            "userIdentity": {
                "type": "AssumedRole",
                "principalId": "AROAEXAMPLEID:somebody",
                "arn": "arn:aws:sts::111122223333:assumed-role/Admin/somebody",
                "accountId": "111122223333",
                "sessionContext": {
                    "sessionIssuer": {
                        "type": "Role",
                        "arn": "arn:aws:iam::111122223333:role/Admin",
                        "userName": "Admin",
                    }
                },
            },
            "eventTime": "2026-11-20T10:15:29Z",
            "eventSource": f"{service}.amazonaws.com",
            "eventName": name,
            "awsRegion": "eu-central-1",
            "sourceIPAddress": "198.51.100.7",
            "userAgent": "aws-cli/2.22.0",
            "requestParameters": None,
            "responseElements": {"_return": True},
            "requestID": "4f1c8a0e-55ad-4a5c-8f6a-1d2c3b4a5968",
            "eventID": "b7a2f2b6-61a5-4d4e-9a52-7f3d6f9f1c33",
            "readOnly": False,
            "eventType": "AwsApiCall",
            "managementEvent": True,
            "recipientAccountId": "111122223333",
            "eventCategory": "Management",
            **detail,
        },
    }


# --- Files and command --------------------------------------------------------------------------


@EVERY
def test_the_committed_template_is_what_the_rules_say(cloud: Cloud, part: Part, file: Path) -> None:
    assert file.read_text("utf-8") == event_template_text(cloud, part), "run: make generated"


@EVERY
def test_the_command_prints_or_writes_it(
    cloud: Cloud, part: Part, file: Path, tmp_path: Path
) -> None:
    command = ["react", "template", "--cloud", cloud.value, "--part", part.value]
    made = tmp_path / "made.json"
    printed = CliRunner().invoke(app, command)
    written = CliRunner().invoke(app, [*command, "--output", str(made)])
    assert (printed.exit_code, written.exit_code, written.stdout) == (0, 0, "")
    assert printed.stdout == made.read_text("utf-8") == file.read_text("utf-8")


@MADE
def test_without_a_part_it_is_the_one_that_the_rules_fill(cloud: Cloud, part: Part) -> None:
    printed = CliRunner().invoke(app, ["react", "template", "--cloud", cloud.value])
    assert printed.stdout == event_template_text(cloud, part)


def test_events_can_be_as_few_as_the_rules_that_are_wanted() -> None:
    command = ["react", "template", "--cloud", "aws", "--rule", "aws_s3_bucket_versioning_enabled"]
    made = CliRunner().invoke(app, [*command, "--rule", "aws_ec2_ebs_*"])
    assert made.exit_code == 0
    wanted = rules_of(["aws_s3_bucket_versioning_enabled", "aws_ec2_ebs_*"])
    assert json.loads(made.stdout) == event_template(Cloud.AWS, Part.MEMBER, wanted)
    assert "PutBucketVersioning" in made.stdout
    assert "EnableEbsEncryptionByDefault" in made.stdout
    assert "PutBucketAcl" not in made.stdout
    assert "iam.amazonaws.com" not in made.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cloud", "aws", "--rule", "aws_s9_*"], "--rule"),
        (["--cloud", "aws", "--rule", "azure_*"], "none of these rules is of aws"),
        (["--cloud", "aws", "--part", "queue"], "Name member or hub."),
        (["--cloud", "azure", "--part", "hub"], "Name subscription or queue."),
    ],
)
def test_a_template_of_nothing_is_refused(options: list[str], said: str) -> None:
    result = CliRunner().invoke(app, ["react", "template", *options])
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr


@MADE
def test_a_rule_with_one_more_event_widens_its_template_alone(cloud: Cloud, part: Part) -> None:
    first = next(rule for rule in RULES if rule.cloud is cloud)
    more = {
        Cloud.AWS: "workmail:UpdateUser",
        Cloud.AZURE: "Microsoft.Batch/batchAccounts/write",
    }[cloud]
    wider = replace(first, events=(*first.events, more))
    rules = [wider if rule is first else rule for rule in RULES]
    word = more.rpartition(":")[2]
    assert word in event_template_text(cloud, part, rules)
    assert word not in event_template_text(cloud, part)
    other = next(one for one in Cloud if one is not cloud)
    assert event_template(other, None, rules) == event_template(other)


# --- AWS ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("part", list(PARTS[Cloud.AWS]))
def test_cfn_lint_finds_nothing_in_any_region(part: Part) -> None:
    text = event_template_text(Cloud.AWS, part)
    regions = ["us-east-1", "eu-central-1", "cn-north-1", "us-gov-west-1"]
    assert lint(text, config=ManualArgs(regions=regions)) == []
    assert not re.search(r"\d{12}", text)
    assert len(text.encode()) <= MOST_TEMPLATE_BYTES


def test_the_patterns_are_within_what_aws_takes() -> None:
    assert all(len(json.dumps(pattern)) <= MOST_PATTERN_CHARACTERS for pattern in patterns())
    assert len(patterns()) < MOST_RULES


def test_names_that_no_longer_fit_into_one_pattern_get_another() -> None:
    operations = [f"ec2:{'A' * 40}{number:03}" for number in range(100)]
    made = event_patterns(operations)["ec2"]
    assert len(made) > 1
    assert all(len(json.dumps(pattern)) <= MOST_PATTERN_CHARACTERS for pattern in made)
    names = [name for pattern in made for name in pattern["detail"]["eventName"]]
    assert [f"ec2:{name}" for name in names] == operations
    many = replace(next(r for r in RULES if r.cloud is Cloud.AWS), events=tuple(operations))
    rules = event_template(Cloud.AWS, Part.MEMBER, [many])["Resources"]
    assert list(rules) == [
        "Sender",
        "Ec2Events",
        *(f"Ec2Events{n + 2}" for n in range(len(made) - 1)),
    ]


def test_each_call_that_a_rule_is_about_is_sent_once() -> None:
    operations = watched_operations(Cloud.AWS)
    assert operations
    assert {one: matching(api_call(one)) for one in operations} == dict.fromkeys(operations, 1)


def test_failures_are_not_sent() -> None:
    for operation in watched_operations(Cloud.AWS):
        assert matching(api_call(operation, errorCode="AccessDenied", errorMessage="no")) == 0


@pytest.mark.parametrize("read", ["ec2:DescribeSecurityGroups", "s3:GetBucketAcl", "iam:ListUsers"])
def test_reads_are_not_sent(read: str) -> None:
    assert matching(api_call(read, readOnly=True)) == 0


@pytest.mark.attack
def test_an_event_that_somebody_made_up_is_not_sent() -> None:
    """EventBridge takes a source of aws.* from AWS alone; anybody may send the other fields."""
    event = api_call("s3:PutBucketAcl") | {"source": "com.example.attacker"}
    assert matching(event) == 0
    rule = event_template(Cloud.AWS, Part.HUB)["Resources"]["ToQueue"]["Properties"]
    taken = EventPattern.load(json.dumps(rule["EventPattern"]))
    assert not taken.matches_event(event)
    assert taken.matches_event(api_call("s3:PutBucketAcl"))


def test_only_the_rule_sends_into_the_queue_and_suture_only_reads_it() -> None:
    resources = event_template(Cloud.AWS, Part.HUB)["Resources"]
    may = {
        (name, statement["Sid"]): statement
        for name in ("QueuePolicy", "DeadLettersPolicy")
        for statement in resources[name]["Properties"]["PolicyDocument"]["Statement"]
        if statement["Effect"] == "Allow"
    }
    rule = {"ArnEquals": {"aws:SourceArn": {"Fn::GetAtt": ["ToQueue", "Arn"]}}}
    sending = {one: it for one, it in may.items() if "Service" in it["Principal"]}
    assert len(sending) == 2
    assert all(it["Condition"] == rule for it in sending.values())
    suture = {
        name: it["Action"]
        for (name, _), it in may.items()
        if it["Principal"].get("AWS") is not None
    }
    assert suture == {
        "QueuePolicy": ["sqs:DeleteMessage", "sqs:GetQueueAttributes", "sqs:ReceiveMessage"],
        "DeadLettersPolicy": "sqs:SendMessage",
    }


def test_a_member_may_send_to_the_bus_and_nothing_else() -> None:
    sender = event_template(Cloud.AWS, Part.MEMBER)["Resources"]["Sender"]["Properties"]
    (policy,) = sender["Policies"]
    assert policy["PolicyDocument"]["Statement"] == [
        {"Effect": "Allow", "Action": "events:PutEvents", "Resource": {"Ref": "HubBusArn"}}
    ]
    assert "ManagedPolicyArns" not in sender


@pytest.fixture
def queue(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Both stacks, deployed in one account; the URL of the queue that they fill."""
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "testing")
    mocked = mock_aws()
    mocked.start(reset=False)  # an emulated cloud may live in this process, of the same moto
    try:
        stacks = boto3.client("cloudformation", "us-east-1")

        def deploy(part: Part, **parameters: str) -> dict[str, str]:
            stacks.create_stack(
                StackName=part.value,
                TemplateBody=event_template_text(Cloud.AWS, part),
                Capabilities=["CAPABILITY_IAM"],
                Parameters=[
                    {"ParameterKey": key, "ParameterValue": value}
                    for key, value in parameters.items()
                ],
            )
            (stack,) = stacks.describe_stacks(StackName=part.value)["Stacks"]
            return {one["OutputKey"]: one["OutputValue"] for one in stack.get("Outputs", [])}

        hub = deploy(
            Part.HUB,
            HubPrincipal="arn:aws:iam::123456789012:role/Suture",
            OrganizationId="o-abcdefghij",
        )
        deploy(Part.MEMBER, HubBusArn=hub["BusArn"])
        yield hub["EventQueue"]
        for part in (Part.MEMBER, Part.HUB):
            stacks.delete_stack(StackName=part.value)
    finally:
        mocked.stop(remove_data=False)


# moto knows neither kind of policy, and says so.
@pytest.mark.filterwarnings("ignore:Tried to parse AWS:UserWarning")
def test_deployed_they_bring_what_changed_to_the_queue_and_nothing_else(queue: str) -> None:
    sent = [
        api_call("s3:PutBucketAcl"),
        api_call("s3:PutBucketAcl", errorCode="AccessDenied"),
        api_call("s3:GetBucketAcl", readOnly=True),
        api_call("ec2:AuthorizeSecurityGroupIngress"),
    ]
    boto3.client("events", "us-east-1").put_events(
        Entries=[
            {
                "Source": one["source"],
                "DetailType": one["detail-type"],
                "Detail": json.dumps(one["detail"]),
            }
            for one in sent
        ]
    )
    reading = boto3.client("sqs", "us-east-1")
    came = reading.receive_message(QueueUrl=queue, MaxNumberOfMessages=10)["Messages"]
    details = [json.loads(message["Body"])["detail"] for message in came]
    assert details == [sent[0]["detail"], sent[3]["detail"]]
    kept = reading.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"])["Attributes"]
    assert kept["VisibilityTimeout"] == "60"
    assert kept["ReceiveMessageWaitTimeSeconds"] == "20"
    assert kept["MessageRetentionPeriod"] == str(14 * 86_400)
    assert json.loads(kept["RedrivePolicy"])["deadLetterTargetArn"].endswith(":suture-events-dead")


# --- Azure --------------------------------------------------------------------------------------


def nested(part: Part) -> dict[str, Any]:
    """The template that a subscription's template deploys into its resource group."""
    (found,) = [
        one["properties"]
        for one in event_template(Cloud.AZURE, part)["resources"]
        if one["type"] == "Microsoft.Resources/deployments"
    ]
    return found


def resources(part: Part, kind: str) -> list[dict[str, Any]]:
    return [one for one in nested(part)["template"]["resources"] if one["type"] == kind]


def test_each_operation_that_a_rule_is_about_is_in_one_filter() -> None:
    lists = event_template(Cloud.AZURE)["variables"]["operations"]
    named = [one for some in lists for one in some]
    assert sorted(named) == list(watched_operations(Cloud.AZURE))
    assert all(0 < len(some) <= MOST_FILTER_VALUES for some in lists)


def test_the_event_types_are_those_of_the_operations() -> None:
    assert event_template(Cloud.AZURE)["variables"]["eventTypes"] == [
        "Microsoft.Resources.ResourceDeleteSuccess",
        "Microsoft.Resources.ResourceWriteSuccess",
    ]
    first = next(rule for rule in RULES if rule.cloud is Cloud.AZURE)
    acting = replace(first, events=("Microsoft.Compute/virtualMachines/start/action",))
    deleting = "Microsoft.Network/networkSecurityGroups/delete"  # of the rule's kind
    assert event_template(Cloud.AZURE, None, [acting])["variables"] == {
        "eventTypes": [
            "Microsoft.Resources.ResourceActionSuccess",
            "Microsoft.Resources.ResourceDeleteSuccess",
        ],
        "operations": [["Microsoft.Compute/virtualMachines/start/action", deleting]],
    }


def test_the_operations_of_a_provider_share_a_filter_where_they_fit() -> None:
    small = [f"Microsoft.A/a{number:02}/write" for number in range(20)]
    large = [f"Microsoft.B/b{number:02}/write" for number in range(30)]
    rest = ["Microsoft.C/c/write"]
    assert filter_values([*rest, *large, *small]) == [
        [*small, *large[25:]],
        large[:25],
        rest,
    ]


def test_every_subscription_filters_by_its_list_and_keeps_what_it_cannot_deliver() -> None:
    (one,) = resources(Part.SUBSCRIPTION, "Microsoft.EventGrid/systemTopics/eventSubscriptions")
    assert one["copy"]["count"] == "[length(parameters('operations'))]"
    properties = one["properties"]
    (only,) = properties["filter"]["advancedFilters"]
    assert only == {
        "operatorType": "StringIn",
        "key": "data.operationName",
        "values": "[parameters('operations')[copyIndex()]]",
    }
    assert properties["deadLetterDestination"]["endpointType"] == "StorageBlob"
    assert properties["retryPolicy"] == {
        "maxDeliveryAttempts": 30,
        "eventTimeToLiveInMinutes": 1440,
    }


def test_the_queues_take_and_give_what_suture_needs_and_no_more() -> None:
    names = {
        one["name"]
        for one in resources(Part.QUEUE, "Microsoft.Storage/storageAccounts/queueServices/queues")
    }
    assert names == {
        f"[concat(parameters('account'), '/default/{queue}')]"
        for queue in ("suture-events", "suture-events-poison")
    }
    roles = nested(Part.QUEUE)["template"]["variables"]["roles"]
    assert {(role["name"], role["queue"]) for role in roles} == {
        ("Storage Queue Data Message Processor", "suture-events"),
        ("Storage Queue Data Reader", "suture-events"),
        ("Storage Queue Data Message Sender", "suture-events-poison"),
    }
    (account,) = resources(Part.QUEUE, "Microsoft.Storage/storageAccounts")
    assert account["properties"]["minimumTlsVersion"] == "TLS1_2"
    assert account["properties"]["allowBlobPublicAccess"] is False
    assert account["properties"]["supportsHttpsTrafficOnly"] is True


def test_both_azure_templates_mean_the_same_queue_and_container() -> None:
    parameters = event_template(Cloud.AZURE)["parameters"]
    names = json.dumps(nested(Part.QUEUE)["template"])
    for parameter in ("queueName", "undeliveredContainer"):
        assert f"/default/{parameters[parameter]['defaultValue']}')]" in names


@pytest.mark.parametrize("part", list(PARTS[Cloud.AZURE]))
def test_expressions_name_what_there_is_and_all_of_it(part: Part) -> None:
    """Parameters and variables that are named are declared, and the other way round."""
    inner = nested(part)
    whole = event_template(Cloud.AZURE, part)
    (deployment,) = [one for one in whole["resources"] if one.get("properties") == inner]
    assert inner["expressionEvaluationOptions"] == {"scope": "inner"}
    assert set(inner["parameters"]) == set(inner["template"]["parameters"])
    outer = {**whole, "resources": [one for one in whole["resources"] if one is not deployment]}
    outer["nested"] = {**deployment, "properties": {**inner, "template": None}}
    for template in (outer, inner["template"]):
        for kind in ("parameters", "variables"):
            named = set(re.findall(rf"\b{kind}\('(\w+)'\)", json.dumps(template)))
            assert named == set(template.get(kind, {}))
        for value in re.findall(r'"(\[[^"]*\])"', json.dumps(template)):
            assert value.count("(") == value.count(")")
            assert value.count("'") % 2 == 0
