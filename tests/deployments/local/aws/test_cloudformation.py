"""The emulated CloudFormation, driven by real boto3: is it as strict as AWS?"""

from __future__ import annotations

import json

import pytest
from botocore.exceptions import ClientError

from deployments.templates import template_text
from tasks.model import Cloud

pytestmark = pytest.mark.slow

NAMED = ["CAPABILITY_NAMED_IAM"]
TRUST = {
    "Version": "2012-10-17",
    "Statement": [{"Effect": "Deny", "Principal": "*", "Action": "sts:AssumeRole"}],
}


def role(**properties):
    return {"Type": "AWS::IAM::Role", "Properties": {"AssumeRolePolicyDocument": TRUST}} | (
        {"Properties": {"AssumeRolePolicyDocument": TRUST, **properties}} if properties else {}
    )


def policy(**properties):
    document = {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Action": "s3:ListAllMyBuckets", "Resource": "*"}],
    }
    return {
        "Type": "AWS::IAM::ManagedPolicy",
        "Properties": {"PolicyDocument": document, **properties},
    }


def body(resources, **sections):
    return json.dumps(
        {"AWSTemplateFormatVersion": "2010-09-09", "Resources": resources, **sections}
    )


def refused(call, **params):
    with pytest.raises(ClientError) as caught:
        call(**params)
    error = caught.value.response["Error"]
    return error["Code"], error["Message"]


@pytest.fixture
def cfn(cloud):
    return cloud.client("cloudformation", cloud.admin())


@pytest.fixture
def iam(cloud):
    return cloud.client("iam", cloud.admin())


@pytest.fixture
def stack(cfn):
    """Makes a stack, answers how it ended, and deletes it afterwards."""
    made = []

    def make(name, template, **params):
        params = {"Capabilities": NAMED, **params}
        made.append(cfn.create_stack(StackName=name, TemplateBody=template, **params)["StackId"])
        (described,) = cfn.describe_stacks(StackName=made[-1])["Stacks"]
        return described

    yield make
    for one in made:
        cfn.delete_stack(StackName=one)


def test_a_stack_makes_what_iam_then_shows_and_takes_it_away(cfn, iam, stack):
    resources = {
        "R": role(
            RoleName="Made",
            Description="says so",
            ManagedPolicyArns=[{"Ref": "P"}],
            PermissionsBoundary={"Ref": "P"},
            MaxSessionDuration=7200,
            Policies=[
                {
                    "PolicyName": "inline",
                    "PolicyDocument": {
                        "Version": "2012-10-17",
                        "Statement": [
                            {
                                "Effect": "Allow",
                                "Action": "s3:GetBucketPolicy",
                                "Resource": {"Fn::Sub": "arn:${AWS::Partition}:s3:::${!x}-${Name}"},
                            }
                        ],
                    },
                }
            ],
        ),
        "P": policy(ManagedPolicyName={"Fn::Sub": "${Name}Ceiling"}),
    }
    described = stack(
        "whole",
        body(
            resources,
            Parameters={"Name": {"Type": "String"}},
            Outputs={"Arn": {"Value": {"Fn::GetAtt": "R.Arn"}}},
        ),
        Parameters=[{"ParameterKey": "Name", "ParameterValue": "Made"}],
    )
    assert described["StackStatus"] == "CREATE_COMPLETE"
    made = iam.get_role(RoleName="Made")["Role"]
    assert described["Outputs"] == [{"OutputKey": "Arn", "OutputValue": made["Arn"]}]
    assert (made["Description"], made["MaxSessionDuration"]) == ("says so", 7200)
    assert made["AssumeRolePolicyDocument"] == TRUST
    boundary = made["PermissionsBoundary"]["PermissionsBoundaryArn"]
    assert boundary.endswith(":policy/MadeCeiling")
    (attached,) = iam.list_attached_role_policies(RoleName="Made")["AttachedPolicies"]
    assert attached["PolicyArn"] == boundary
    inline = iam.get_role_policy(RoleName="Made", PolicyName="inline")["PolicyDocument"]
    assert inline["Statement"][0]["Resource"] == "arn:aws:s3:::${x}-Made"

    cfn.delete_stack(StackName="whole")
    assert refused(iam.get_role, RoleName="Made")[0] == "NoSuchEntity"
    assert refused(iam.get_policy, PolicyArn=boundary)[0] == "NoSuchEntity"
    assert refused(cfn.describe_stacks, StackName="whole")[0] == "ValidationError"
    (gone,) = cfn.describe_stacks(StackName=described["StackId"])["Stacks"]
    assert gone["StackStatus"] == "DELETE_COMPLETE"


def test_a_stack_belongs_to_its_account_and_region(cloud, cfn, stack):
    stack("mine", body({"R": role()}))
    elsewhere = cloud.client("cloudformation", cloud.admin(), region="us-east-1")
    stranger = cloud.client("cloudformation", cloud.admin(cloud.healthy[2]))
    for other in (elsewhere, stranger):
        assert refused(other.describe_stacks, StackName="mine")[0] == "ValidationError"
    assert "mine" in [one["StackName"] for one in cfn.describe_stacks()["Stacks"]]


def test_a_failing_resource_takes_the_others_with_it(cfn, iam, stack):
    iam.create_role(RoleName="Taken", AssumeRolePolicyDocument=json.dumps(TRUST))
    try:
        described = stack(
            "clash",
            body({"A": role(RoleName="First"), "B": {**role(RoleName="Taken"), "DependsOn": "A"}}),
        )
        assert described["StackStatus"] == "ROLLBACK_COMPLETE"
        assert refused(iam.get_role, RoleName="First")[0] == "NoSuchEntity"
        events = cfn.describe_stack_events(StackName="clash")["StackEvents"]
        (failed,) = [one for one in events if one["ResourceStatus"] == "CREATE_FAILED"]
        assert failed["LogicalResourceId"] == "B"
        assert "Taken" in failed["ResourceStatusReason"]
        assert iam.get_role(RoleName="Taken")
    finally:
        iam.delete_role(RoleName="Taken")


def test_resources_are_made_with_the_callers_permissions(cloud, iam, stack):
    """Who may make stacks but no roles makes no roles."""
    allowed = {"Effect": "Allow", "Action": "cloudformation:*", "Resource": "*"}
    document = json.dumps({"Version": "2012-10-17", "Statement": [allowed]})
    keys = cloud.assume(cloud.told["admin_role"], by=cloud.told["customer"], Policy=document)
    limited = cloud.client("cloudformation", keys)
    made = limited.create_stack(
        StackName="limited", TemplateBody=body({"R": role(RoleName="Sly")}), Capabilities=NAMED
    )
    (described,) = limited.describe_stacks(StackName=made["StackId"])["Stacks"]
    assert described["StackStatus"] == "ROLLBACK_COMPLETE"
    (failed,) = [
        event
        for event in limited.describe_stack_events(StackName="limited")["StackEvents"]
        if event["ResourceStatus"] == "CREATE_FAILED"
    ]
    assert "not authorized to perform: iam:CreateRole" in failed["ResourceStatusReason"]
    assert refused(iam.get_role, RoleName="Sly")[0] == "NoSuchEntity"


def test_suture_itself_makes_no_stacks(cloud):
    cfn = cloud.client("cloudformation", cloud.scanner())
    said = refused(cfn.create_stack, StackName="x", TemplateBody="{}", Capabilities=NAMED)
    assert said[0] == "AccessDenied"


def test_a_policy_that_aws_would_not_take_fails_its_resource(cfn, stack):
    many = [f"s3:Get{'x' * 60}{number}" for number in range(120)]
    large = policy(ManagedPolicyName="Large")
    large["Properties"]["PolicyDocument"]["Statement"][0]["Action"] = many
    malformed = role(RoleName="Malformed")
    malformed["Properties"]["AssumeRolePolicyDocument"] = {"Version": "2012-10-17"}
    for name, resource, word in (
        ("large", large, "PolicySize: 6144"),
        ("malformed", malformed, "Syntax errors"),
        ("extra", role(Bogus="x"), "extraneous key [Bogus]"),
        ("less", {"Type": "AWS::IAM::Role"}, "required key [AssumeRolePolicyDocument]"),
    ):
        assert stack(name, body({"R": resource}))["StackStatus"] == "ROLLBACK_COMPLETE"
        events = cfn.describe_stack_events(StackName=name)["StackEvents"]
        reasons = [one.get("ResourceStatusReason", "") for one in events]
        assert any(word in reason for reason in reasons), reasons


ONE = {"R": role(RoleName="One")}


@pytest.mark.parametrize(
    ("template", "params", "word"),
    [
        ("{", {}, "not well-formed"),
        ("[]", {}, "unsupported structure"),
        (json.dumps({"Resources": {}}), {}, "At least one Resources member"),
        (body(ONE, Mappings={}), {}, "Mappings"),
        (body({"R": {"Type": "AWS::S3::Bucket"}}), {}, "Unrecognized resource types"),
        (body({"R": {"Properties": {}}}), {}, "must have a Type"),
        (body({"R": {**role(), "UpdatePolicy": {}}}), {}, "UpdatePolicy"),
        (body({"R": role(RoleName={"Ref": "Nobody"})}), {}, "Unresolved resource dependencies"),
        (body({"R": role(RoleName={"Fn::Join": ["", ["a"]]})}), {}, "Fn::Join"),
        (
            body({"A": role(Path={"Ref": "B"}), "B": role(Path={"Ref": "A"})}),
            {},
            "Circular dependency",
        ),
        (body({"R": {**role(), "Condition": "No"}}), {}, "Unresolved condition"),
        (body(ONE, Conditions={"No": {"Fn::Or": []}}), {}, "Fn::Not and Fn::Equals"),
        (body(ONE, Parameters={"P": {"Type": "String"}}), {}, "[P] must have values"),
        (body(ONE, Parameters={"P": {"Type": "Number"}}), {}, "Unrecognized parameter type"),
        (
            body(ONE),
            {"Parameters": [{"ParameterKey": "P", "ParameterValue": "v"}]},
            "do not exist in the template",
        ),
        (
            body(ONE, Parameters={"P": {"Type": "String", "AllowedPattern": "[a-z]+"}}),
            {"Parameters": [{"ParameterKey": "P", "ParameterValue": "V"}]},
            "'P' must match pattern",
        ),
        (body(ONE), {"OnFailure": "DO_NOTHING"}, "OnFailure is not emulated"),
        (body(ONE), {"StackName": "no_underscores"}, "stackName"),
        (body(ONE) + " " * 51_200, {}, "less than or equal to 51200"),
    ],
)
def test_what_is_not_a_template_is_refused_before_anything_is_made(
    cfn, iam, template, params, word
):
    call = {"StackName": "bad", "TemplateBody": template, "Capabilities": NAMED, **params}
    code, message = refused(cfn.create_stack, **call)
    assert code == "ValidationError"
    assert word in message
    assert refused(iam.get_role, RoleName="One")[0] == "NoSuchEntity"
    assert refused(cfn.describe_stacks, StackName="bad")[0] == "ValidationError"


def test_names_need_the_stronger_capability(cfn):
    template = body(ONE)
    for given in ([], ["CAPABILITY_IAM"], ["CAPABILITY_AUTO_EXPAND"]):
        call = {"StackName": "caps", "TemplateBody": template, "Capabilities": given}
        assert refused(cfn.create_stack, **call)[0] == "InsufficientCapabilitiesException"


def test_a_name_is_used_once(cfn, stack):
    stack("twice", body({"R": role()}))
    call = {"StackName": "twice", "TemplateBody": body({"R": role()}), "Capabilities": NAMED}
    assert refused(cfn.create_stack, **call)[0] == "AlreadyExistsException"


def test_operations_that_are_not_emulated_say_so(cfn):
    assert refused(cfn.update_stack, StackName="x", TemplateBody="{}")[0] == "InvalidAction"


def test_the_discovery_role_is_made_where_it_is_named(cloud):
    """In the management account, beside which no other has one."""
    admin = {"Capabilities": NAMED, "TemplateBody": template_text(Cloud.AWS)}
    cfn = cloud.client("cloudformation", cloud.told["customer"])
    iam = cloud.client("iam", cloud.told["customer"])
    given = {
        "HubPrincipal": cloud.told["hub"]["arn"],
        "ExternalId": cloud.told["external_id"],
        "ScannerRoleName": "OtherScanner",
        "RemediatorRoleName": "OtherRemediator",
    }
    for names, found in (({"DiscoveryRoleName": "OtherDiscovery"}, True), ({}, False)):
        parameters = [
            {"ParameterKey": key, "ParameterValue": value}
            for key, value in {**given, **names}.items()
        ]
        made = cfn.create_stack(StackName="suture", Parameters=parameters, **admin)
        (described,) = cfn.describe_stacks(StackName=made["StackId"])["Stacks"]
        assert described["StackStatus"] == "CREATE_COMPLETE"
        if found:
            (policy_name,) = iam.list_role_policies(RoleName="OtherDiscovery")["PolicyNames"]
            document = iam.get_role_policy(RoleName="OtherDiscovery", PolicyName=policy_name)
            (statement,) = document["PolicyDocument"]["Statement"]
            assert statement["Action"] == ["organizations:ListAccounts"]
        else:
            assert refused(iam.get_role, RoleName="OtherDiscovery")[0] == "NoSuchEntity"
        cfn.delete_stack(StackName="suture")
