"""A thief with the session of one fix: over HTTP, for every rule, all that it must not do.

The calls here are made with the session's own credentials and past Suture's own checks, so that
what refuses them is the cloud.
"""

from __future__ import annotations

import uuid
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest
from azure.core.exceptions import HttpResponseError
from botocore import xform_name
from botocore.exceptions import ClientError

from tasks.clouds.authorization import GRAINS
from tasks.clouds.aws_write import aws_client
from tasks.clouds.azure_write import Arm
from tasks.clouds.remediator import Session, apply_all
from tasks.clouds.session_policy import permissions, policy_text, session_policy
from tasks.errors import AccessRefused, CloudError
from tasks.model import Call, Cloud, Resource, Rule, Step, Verdict
from tasks.rules import rule

if TYPE_CHECKING:
    from tests.tasks.clouds.conftest import Gated

pytestmark = [pytest.mark.slow, pytest.mark.attack]

# One for each shape of a session; test_contract.py has every row, less thoroughly.
AWS_RULES = (
    "aws_ec2_security_group_ssh_not_open",
    "aws_ec2_security_group_all_ports_not_open",
    "aws_ec2_ebs_encrypted_by_default",
    "aws_s3_bucket_public_access_blocked",
    "aws_s3_bucket_versioning_enabled",
    "aws_s3_bucket_tls_only",
    "aws_iam_password_policy_length",
)
AZURE_RULES = (
    "azure_network_security_group_ssh_not_open",
    "azure_network_security_group_any_port_not_open",
    "azure_storage_account_https_only",
    "azure_storage_account_minimum_tls",
)
WRITES = {write for one in AWS_RULES for write in rule(one).writes}
WORLD = [{"IpProtocol": "tcp", "FromPort": 9, "ToPort": 9, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
OPEN_POLICY = '{"Version":"2012-10-17","Statement":[]}'
DENIED = {"AccessDenied", "UnauthorizedOperation"}
REGIONS = {"eu-central-1", "us-east-1"}
GROUPS = "Microsoft.Network/networkSecurityGroups"
NETWORK, STORAGE, ROLES, IDENTITY = "2024-05-01", "2023-05-01", "2022-04-01", "2023-01-31"


@pytest.fixture(autouse=True)
def closed_afterwards(gated: Gated) -> Iterator[None]:
    yield
    while gated.opened:
        gated.close(gated.opened.pop())


@dataclass
class Thief:
    """Who has got hold of the session made for one failing resource."""

    gated: Gated
    finding: Mapping[str, str]
    resource: Resource
    steps: Sequence[Step]
    session: Session
    clients: dict[tuple[str, ...], Any] = field(default_factory=dict)

    @property
    def own(self) -> set[str]:
        return {name.lower() for name in permissions(self.steps)}

    @property
    def its_rule(self) -> Rule:
        return rule(self.finding["rule"])

    def do_its_work(self) -> None:
        """The fix, and its undo, with the session that the attacks are made with."""
        apply_all(self.session, self.steps)
        assert self.its_rule.judge(self.gated.read(self.finding))[0] is Verdict.PASS
        for step in reversed(self.steps):
            self.session.undo(step)
        left = self.its_rule.undone(self.resource)
        assert self.gated.read(self.finding).fingerprint == left.fingerprint

    def aws(self, call: Call, region: str) -> str:
        """The error code with which AWS answers a call; empty where it does it."""
        answers = set()
        for keys in self.session._inner._keys.values():  # type: ignore[attr-defined]
            name = (keys.access_key, call.service, region)
            if name not in self.clients:
                self.clients[name] = aws_client(
                    self.gated.inventory.aws[0], call.service, region, keys
                )
            try:
                getattr(self.clients[name], xform_name(call.operation))(**call.params)
            except ClientError as error:
                answers.add(error.response["Error"]["Code"])
            else:
                answers.add("")
        (answer,) = answers
        return str(answer)

    @property
    def arm(self) -> Arm:
        arm: Arm = self.session._inner._arm  # type: ignore[attr-defined]
        return arm

    def azure(self, method: str, target: str, version: str, body: Any = None) -> None:
        """A call to ARM as it is; raises what it was refused with."""
        self.arm.request(method, target, version, body)


Steal = Callable[[str], Thief]


@pytest.fixture
def steal(gated: Gated) -> Iterator[Steal]:
    """``steal(rule_id)``: the session for a resource on which the rule fails."""
    with ExitStack() as ending:

        def stolen(rule_id: str) -> Thief:
            finding = gated.findings(rule_id)[0]
            resource = gated.read(finding)
            steps = gated.fix(finding, resource)
            session = gated.session(finding, resource, steps, gated.open(finding).code)
            thief = Thief(gated, finding, resource, steps, ending.enter_context(session))
            ending.callback(lambda: [client.close() for client in thief.clients.values()])
            return thief

        yield stolen


# --- AWS ----------------------------------------------------------------------------------------


@dataclass
class Admin:
    """The customer's own administrators, who make things for the thief to reach for."""

    gated: Gated
    clients: dict[tuple[str, ...], Any] = field(default_factory=dict)

    def client(self, service: str, account: str, region: str) -> Any:
        name = (service, account, region)
        if name not in self.clients:
            source, keys = self.gated.inventory.aws[0], self.gated.admin_keys(account)
            self.clients[name] = aws_client(source, service, region, keys)
        return self.clients[name]

    def group(self, account: str, region: str) -> str:
        """A security group that the internet may enter; its id."""
        ec2 = self.client("ec2", account, region)
        made = ec2.create_security_group(GroupName=f"it-{uuid.uuid4().hex}", Description="d")
        ec2.authorize_security_group_ingress(GroupId=made["GroupId"], IpPermissions=WORLD)
        return str(made["GroupId"])

    def bucket(self, account: str, region: str) -> str:
        name = f"it-{uuid.uuid4().hex}"
        where = {"LocationConstraint": region}
        given = {} if region == "us-east-1" else {"CreateBucketConfiguration": where}
        self.client("s3", account, region).create_bucket(Bucket=name, **given)
        return name

    def seen(self, account: str, region: str, group: str, bucket: str) -> Any:
        """What all the writes of the table could change there."""
        ec2 = self.client("ec2", account, region)
        s3 = self.client("s3", account, region)
        iam = self.client("iam", account, "us-east-1")
        return [
            ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"],
            ec2.get_ebs_encryption_by_default()["EbsEncryptionByDefault"],
            _part(s3.get_public_access_block, Bucket=bucket),
            _part(s3.get_bucket_versioning, Bucket=bucket),
            _part(s3.get_bucket_policy, Bucket=bucket),
            _part(iam.get_account_password_policy),
        ]


def _part(read: Callable[..., dict[str, Any]], **params: Any) -> Any:
    try:
        answer = read(**params)
    except ClientError as error:
        return error.response["Error"]["Code"]
    answer.pop("ResponseMetadata")
    return answer


@pytest.fixture(scope="module")
def admin(gated: Gated) -> Iterator[Admin]:
    made = Admin(gated)
    yield made
    for client in made.clients.values():
        client.close()


def writes(group: str, bucket: str) -> dict[str, Call]:
    """A call for every write of the table, by its action."""
    on_group = {"GroupId": group, "IpPermissions": WORLD}
    blocks = {"BlockPublicAcls": False}
    given: dict[str, tuple[str, dict[str, Any]]] = {
        "ec2:AuthorizeSecurityGroupIngress": ("AuthorizeSecurityGroupIngress", on_group),
        "ec2:RevokeSecurityGroupIngress": ("RevokeSecurityGroupIngress", on_group),
        "ec2:EnableEbsEncryptionByDefault": ("EnableEbsEncryptionByDefault", {}),
        "ec2:DisableEbsEncryptionByDefault": ("DisableEbsEncryptionByDefault", {}),
        "s3:PutBucketPublicAccessBlock": (
            "PutPublicAccessBlock",
            {"Bucket": bucket, "PublicAccessBlockConfiguration": blocks},
        ),
        "s3:PutBucketVersioning": (
            "PutBucketVersioning",
            {"Bucket": bucket, "VersioningConfiguration": {"Status": "Suspended"}},
        ),
        "s3:PutBucketPolicy": ("PutBucketPolicy", {"Bucket": bucket, "Policy": OPEN_POLICY}),
        "s3:DeleteBucketPolicy": ("DeleteBucketPolicy", {"Bucket": bucket}),
        "iam:UpdateAccountPasswordPolicy": (
            "UpdateAccountPasswordPolicy",
            {"MinimumPasswordLength": 6},
        ),
        "iam:DeleteAccountPasswordPolicy": ("DeleteAccountPasswordPolicy", {}),
    }
    assert set(given) == WRITES, "a write of these rules has no attack yet"
    return {
        action: Call(Cloud.AWS, action.partition(":")[0], operation, params)
        for action, (operation, params) in given.items()
    }


def region_of(call: Call, region: str) -> str:
    return "us-east-1" if call.service == "iam" or region == "global" else region


@pytest.mark.parametrize("rule_id", AWS_RULES)
def test_an_aws_session_does_its_fix_and_undo_and_no_other_write(
    steal: Steal, admin: Admin, rule_id: str
) -> None:
    thief = steal(rule_id)
    thief.do_its_work()
    account, region = thief.resource.account, region_of(thief.steps[0].call, thief.resource.region)
    group, bucket = admin.group(account, region), admin.bucket(account, region)
    before = admin.seen(account, region, group, bucket)
    itself = thief.resource
    name = itself.config.get("GroupId") or itself.config.get("Name") or ""
    where = {"aws.ec2.security_group": (name, bucket), "aws.s3.bucket": (group, name)}
    tried = 0
    for action, call in writes(*where.get(itself.kind, (group, bucket))).items():
        if action.lower() not in thief.own:
            assert thief.aws(call, region_of(call, region)) in DENIED, action
            tried += 1
    assert tried + len(thief.own) == len(WRITES)
    for action, call in writes(group, bucket).items():  # a sibling, in the same account and region
        if GRAINS[action].pattern or action.lower() not in thief.own:
            assert thief.aws(call, region_of(call, region)) in DENIED, action
    assert admin.seen(account, region, group, bucket) == before
    assert thief.gated.read(thief.finding).fingerprint == thief.its_rule.undone(itself).fingerprint


@pytest.mark.parametrize("rule_id", AWS_RULES)
def test_an_aws_session_reaches_no_other_region_and_no_other_account(
    steal: Steal, admin: Admin, rule_id: str
) -> None:
    thief = steal(rule_id)
    account, own_region = thief.resource.account, region_of(thief.steps[0].call, "eu-central-1")
    accounts = [one["id"] for one in thief.gated.fleet.description["aws"]["accounts"]]
    stranger = next(one for one in accounts if one != account)
    if thief.resource.region != "global":
        own_region = thief.resource.region
    (elsewhere,) = REGIONS - {own_region}
    for owner, region in ((account, elsewhere), (stranger, own_region), (stranger, elsewhere)):
        group, bucket = admin.group(owner, region), admin.bucket(owner, region)
        before = admin.seen(owner, region, group, bucket)
        for action, call in writes(group, bucket).items():
            # What has no ARN is done to the caller's own account, whatever is meant.
            if owner == account or GRAINS[action].pattern:
                assert thief.aws(call, region) in DENIED, (action, owner, region)
        assert admin.seen(owner, region, group, bucket) == before
    # The very calls of the fix and the undo, sent to the other region.
    for step in thief.steps:
        for call in (step.call, *step.undo):
            assert thief.aws(call, elsewhere) in DENIED, call.operation


REMEDIATOR = "SutureRemediator"
BEYOND: Sequence[tuple[str, str, dict[str, Any]]] = (
    ("iam", "CreateUser", {"UserName": "thief"}),
    ("iam", "CreateAccessKey", {"UserName": "thief"}),
    ("iam", "GetRole", {"RoleName": REMEDIATOR}),
    ("iam", "ListRoles", {}),
    ("iam", "GetAccountPasswordPolicy", {}),
    ("iam", "UpdateAssumeRolePolicy", {"RoleName": REMEDIATOR, "PolicyDocument": OPEN_POLICY}),
    (
        "iam",
        "PutRolePolicy",
        {"RoleName": REMEDIATOR, "PolicyName": "more", "PolicyDocument": OPEN_POLICY},
    ),
    (
        "iam",
        "AttachRolePolicy",
        {"RoleName": REMEDIATOR, "PolicyArn": "arn:aws:iam::aws:policy/AdministratorAccess"},
    ),
    ("ec2", "DescribeSecurityGroups", {}),
    ("ec2", "DescribeInstances", {}),
    ("ec2", "GetEbsEncryptionByDefault", {}),
    ("ec2", "CreateSecurityGroup", {"GroupName": "thief", "Description": "d"}),
    ("s3", "ListBuckets", {}),
)


@pytest.mark.parametrize("rule_id", AWS_RULES)
def test_an_aws_session_reads_nothing_and_gives_itself_nothing(
    steal: Steal, admin: Admin, rule_id: str
) -> None:
    thief = steal(rule_id)
    account, region = thief.resource.account, region_of(thief.steps[0].call, thief.resource.region)
    itself = thief.resource
    group = itself.config.get("GroupId") or admin.group(account, region)
    bucket = itself.config.get("Name") or admin.bucket(account, region)
    here = (
        ("ec2", "DeleteSecurityGroup", {"GroupId": group}),
        ("ec2", "AuthorizeSecurityGroupEgress", {"GroupId": group, "IpPermissions": WORLD}),
        ("ec2", "CreateTags", {"Resources": [group], "Tags": [{"Key": "k", "Value": "v"}]}),
        ("s3", "GetBucketPolicy", {"Bucket": bucket}),
        ("s3", "ListObjectsV2", {"Bucket": bucket}),
        ("s3", "GetObject", {"Bucket": bucket, "Key": "k"}),
        ("s3", "PutObject", {"Bucket": bucket, "Key": "k", "Body": b""}),
        ("s3", "PutBucketAcl", {"Bucket": bucket, "ACL": "public-read"}),
        ("s3", "DeleteBucket", {"Bucket": bucket}),
    )
    for service, operation, params in (*BEYOND, *here):
        call = Call(Cloud.AWS, service, operation, params)
        assert thief.aws(call, region_of(call, region)) in DENIED, operation
    told = thief.gated.fleet.description["aws"]
    source = thief.gated.inventory.aws[0]
    for role in (REMEDIATOR, told["scanner_role"], told["admin_role"]):
        for one in told["accounts"]:
            wanted = {
                "RoleArn": source.role_arn(one["id"], role),
                "RoleSessionName": "thief",
                "ExternalId": told["external_id"],
            }
            assume = Call(Cloud.AWS, "sts", "AssumeRole", wanted)
            assert thief.aws(assume, "us-east-1") in DENIED, (role, one["id"])
    assert thief.gated.read(thief.finding).fingerprint == itself.fingerprint


def test_a_rule_of_a_group_is_a_resource_of_its_own(steal: Steal, admin: Admin) -> None:
    """ModifySecurityGroupRules takes the group and the rule: allowing the group does not do."""
    thief = steal("aws_ec2_security_group_ssh_not_open")
    account, region = thief.resource.account, thief.resource.region
    ec2 = admin.client("ec2", account, region)
    named = [{"Name": "group-id", "Values": [thief.resource.config["GroupId"]]}]
    one = ec2.describe_security_group_rules(Filters=named)["SecurityGroupRules"][0]
    change = {"IpProtocol": "tcp", "FromPort": 1, "ToPort": 2, "CidrIpv4": "0.0.0.0/0"}
    call = Call(
        Cloud.AWS,
        "ec2",
        "ModifySecurityGroupRules",
        {
            "GroupId": thief.resource.config["GroupId"],
            "SecurityGroupRules": [
                {"SecurityGroupRuleId": one["SecurityGroupRuleId"], "SecurityGroupRule": change}
            ],
        },
    )
    assert thief.aws(call, region) in DENIED


def test_an_aws_session_is_over_after_fifteen_minutes(steal: Steal) -> None:
    thief = steal("aws_ec2_ebs_encrypted_by_default")
    thief.gated.aws.advance(timedelta(seconds=901))
    try:
        with pytest.raises(AccessRefused, match="expired"):
            thief.session.apply(thief.steps[0])
    finally:
        thief.gated.aws.advance(timedelta(seconds=-901))
    thief.do_its_work()


def test_what_one_session_cannot_hold_is_done_with_two(steal: Steal, gated: Gated) -> None:
    """Both come in with the same code; each step and undo goes with the session that may do it."""
    rule_id = "aws_ec2_security_group_ssh_not_open"
    finding = gated.findings(rule_id)[0]
    resource = gated.read(finding)
    actions = permissions(gated.fix(finding, resource))
    assert len(actions) == 2
    whole = len(zlib.compress(policy_text(session_policy(resource, actions)).encode()))
    gate = gated.aws._gate
    assert gate is not None
    usual, gate.packed_bytes = gate.packed_bytes, whole - 1
    try:
        thief = steal(rule_id)
        keys = thief.session._inner._keys  # type: ignore[attr-defined]
        assert len({one.access_key for one in keys.values()}) == 2
        thief.do_its_work()
        for action in actions:  # neither may do what the other is for
            call = next(
                one
                for step in thief.steps
                for one in (step.call, *step.undo)
                if one.operation == action.partition(":")[2]
            )
            other = next(one for name, one in keys.items() if name != action)
            alone = replace(thief, session=_with_keys(thief.session, {action: other}))
            assert alone.aws(call, resource.region) in DENIED
        gate.packed_bytes = 10
        with pytest.raises(CloudError, match="Packed policy") as caught:
            steal(rule_id)
        assert caught.value.code == "PackedPolicyTooLarge"
    finally:
        gate.packed_bytes = usual


def _with_keys(session: Session, keys: Mapping[str, Any]) -> Session:
    inner: Any = session._inner
    return Session(type(inner)(inner._source, inner._region, keys))


# --- Azure --------------------------------------------------------------------------------------


@dataclass
class Owner:
    """The customer's own administrator of a subscription."""

    gated: Gated
    arms: dict[str, Arm] = field(default_factory=dict)

    def arm(self, subscription: str) -> Arm:
        if subscription not in self.arms:
            credential = self.gated.customer({"cloud": "azure"}).azure
            assert credential is not None
            self.arms[subscription] = Arm(self.gated.inventory.azure[0], subscription, credential)
        return self.arms[subscription]

    def group(self, around: str, location: str = "westeurope") -> str:
        """A network security group in a resource group, that the internet may enter."""
        target = f"{around}/providers/{GROUPS}/it-{uuid.uuid4().hex}"
        put = Call(Cloud.AZURE, NETWORK, "PUT", {"location": location}, target)
        self.arm(around.split("/")[2]).write(put, None)
        return target.lower()

    def storage(self, around: str, location: str = "westeurope") -> str:
        target = f"{around}/providers/Microsoft.Storage/storageAccounts/it{uuid.uuid4().hex[:20]}"
        body = {"location": location, "sku": {"name": "Standard_LRS"}, "kind": "StorageV2"}
        put = Call(Cloud.AZURE, STORAGE, "PUT", body, target)
        self.arm(around.split("/")[2]).write(put, None)
        return target.lower()

    def seen(self, *targets: str) -> list[Any]:
        found = []
        for target in targets:
            version = NETWORK if "microsoft.network" in target else STORAGE
            found.append(self.arm(target.split("/")[2]).request("GET", target, version))
        return found


@pytest.fixture(scope="module")
def owner(gated: Gated) -> Iterator[Owner]:
    made = Owner(gated)
    yield made
    for arm in made.arms.values():
        arm.close()


def refused(thief: Thief, method: str, target: str, version: str, body: Any = None) -> None:
    with pytest.raises(AccessRefused) as caught:
        thief.azure(method, target, version, body)
    assert caught.value.code in {"AuthorizationFailed", "LinkedAuthorizationFailed"}, target


def open_rule() -> dict[str, Any]:
    return {
        "properties": {
            "priority": 4000,
            "direction": "Inbound",
            "access": "Allow",
            "protocol": "*",
            "sourceAddressPrefix": "*",
            "sourcePortRange": "*",
            "destinationAddressPrefix": "*",
            "destinationPortRange": "9",
        }
    }


def azure_writes(target: str) -> Iterator[tuple[str, str, str, Any]]:
    """Every write of the table on a resource, and those around them that it has not."""
    if "microsoft.network" in target:
        yield "PUT", f"{target}/securityRules/thief", NETWORK, open_rule()
        yield "DELETE", f"{target}/securityRules/thief", NETWORK, None
        yield "PUT", target, NETWORK, {"location": "westeurope"}
        yield "DELETE", target, NETWORK, None
    else:
        yield "PATCH", target, STORAGE, {"properties": {"supportsHttpsTrafficOnly": False}}
        yield "DELETE", target, STORAGE, None


@pytest.mark.parametrize("rule_id", AZURE_RULES)
def test_an_azure_session_does_its_fix_and_undo_and_touches_nothing_else(
    steal: Steal, owner: Owner, rule_id: str
) -> None:
    thief = steal(rule_id)
    thief.do_its_work()
    around = thief.resource.id.partition("/providers/")[0]
    told = thief.gated.fleet.description["azure"]["subscriptions"]
    stranger = next(one["id"] for one in told if one["id"] != thief.resource.account)
    others = [
        one["resource"]
        for one in thief.gated.fleet.truth["findings"]
        if one["account"] == stranger and rule(one["rule"]).kind == thief.resource.kind
    ]
    siblings = [
        owner.group(around),
        owner.storage(around),
        owner.group(around, "germanywestcentral"),
        owner.storage(around, "germanywestcentral"),
        *others[:1],
    ]
    before = owner.seen(*siblings)
    for sibling in siblings:
        for method, target, version, body in azure_writes(sibling):
            refused(thief, method, target, version, body)
        refused(thief, "GET", sibling, NETWORK if "network" in sibling else STORAGE)
    assert owner.seen(*siblings) == before
    left = thief.its_rule.undone(thief.resource)
    assert thief.gated.read(thief.finding).fingerprint == left.fingerprint


@pytest.mark.parametrize("rule_id", AZURE_RULES)
def test_an_azure_session_may_do_nothing_more_to_its_resource(steal: Steal, rule_id: str) -> None:
    thief = steal(rule_id)
    target = thief.resource.id
    if "network" in thief.resource.kind:
        refused(thief, "PUT", target, NETWORK, {"location": "westeurope"})
        refused(thief, "DELETE", target, NETWORK)
    else:
        refused(thief, "DELETE", target, STORAGE)
    assert thief.gated.read(thief.finding).fingerprint == thief.resource.fingerprint


@pytest.mark.parametrize("rule_id", AZURE_RULES)
def test_an_azure_session_gives_itself_nothing(steal: Steal, rule_id: str) -> None:
    thief = steal(rule_id)
    target = thief.resource.id
    subscription = "/".join(target.split("/")[:3])
    source = thief.gated.inventory.azure[0]
    told = thief.gated.fleet.description["azure"]["remediator"]
    role = f"{subscription}/providers/Microsoft.Authorization/roleDefinitions"
    contributor = {
        "properties": {
            "roleDefinitionId": f"{role}/b24988ac-6180-42a0-ab88-20f7382dd24c",
            "principalId": told["principal_id"],
        }
    }
    for scope in (target, target.partition("/providers/")[0], subscription):
        given = f"{scope}/providers/Microsoft.Authorization/roleAssignments"
        refused(thief, "PUT", f"{given}/{uuid.uuid4()}", ROLES, contributor)
    trust = {"properties": {"issuer": "https://thief", "subject": "x", "audiences": ["y"]}}
    credential = f"{source.remediator_identity}/federatedIdentityCredentials"
    refused(thief, "PUT", f"{credential}/thief", IDENTITY, trust)
    refused(thief, "GET", source.remediator_identity, IDENTITY)
    refused(thief, "GET", credential, IDENTITY)  # an open gate's code stands in one


@pytest.mark.parametrize("rule_id", AZURE_RULES)
def test_an_azure_session_ends_with_its_role_assignment(steal: Steal, rule_id: str) -> None:
    thief = steal(rule_id)
    thief.do_its_work()
    thief.gated.close(thief.finding)
    call = thief.steps[0].call
    with pytest.raises((AccessRefused, HttpResponseError)):
        thief.arm.write(call, None)
    left = thief.its_rule.undone(thief.resource)
    assert thief.gated.read(thief.finding).fingerprint == left.fingerprint
