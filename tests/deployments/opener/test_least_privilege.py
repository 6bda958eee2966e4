"""The opener's own identity, with only the policies of deployments/opener, on the emulated clouds.

They are enough to open and to close, and for nothing else.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any

import boto3
import pytest
from azure.identity import ClientSecretCredential
from botocore.exceptions import ClientError

from deployments.local.azure.tenant import ServicePrincipal
from deployments.opener import aws_lambda
from deployments.opener.config import configured_opener, load_opener
from deployments.opener.core import Opener
from tasks.clouds.azure_write import Arm, identity_options
from tasks.errors import AccessRefused

if TYPE_CHECKING:
    from tests.deployments.opener.conftest import Site

pytestmark = [pytest.mark.slow, pytest.mark.attack]

FILES = Path(__file__).parents[3] / "deployments" / "opener"
REGION = "eu-central-1"
URL = "https://gate.acme.example"
SEED = "JBSWY3DPEHPK3PXPJBSWY3DPEHPK3PXP"
OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
AUTHORIZATION, IDENTITY = "2022-04-01", "2023-01-31"


def document(name: str, **filled: str) -> str:
    """A file of deployments/opener with its capitals filled in."""
    text = (FILES / name).read_text()
    for placeholder, value in filled.items():
        assert placeholder in text
        text = text.replace(placeholder, value)
    return text


def opener_of(site: Site, **settings: Any) -> Opener:
    """The opener that a file describes, as a customer writes it."""
    told = site.fleet.description
    file = site.folder / "opener.yaml"
    entries = {
        "suture_opener": 1,
        "inventory": told["inventory"],
        "url": URL,
        "store": (site.folder / "store").as_uri(),
        "journal": site.journal_file.as_uri(),
        "ca_file": told["ca_file"],
        "allow": [
            {"accounts": ["*"], "rules": ["aws_s3_*", "azure_storage_*"], "resources": ["*"]}
        ],
        **settings,
    }
    file.write_text(json.dumps(entries))  # JSON is YAML
    return load_opener(file)


# --- AWS ----------------------------------------------------------------------------------------


@dataclass
class Function:
    """The function's keys, and clients with them or with the opener's role in the account."""

    keys: Mapping[str, str]
    account: str
    endpoint: str

    def client(self, service: str, *, in_account: bool = False) -> Any:
        keys = dict(self.keys)
        if in_account:
            taken = self.client("sts").assume_role(
                RoleArn=f"arn:aws:iam::{self.account}:role/SutureOpener", RoleSessionName="attack"
            )["Credentials"]
            keys = {
                "aws_access_key_id": taken["AccessKeyId"],
                "aws_secret_access_key": taken["SecretAccessKey"],
                "aws_session_token": taken["SessionToken"],
            }
        return boto3.client(service, region_name=REGION, endpoint_url=self.endpoint, **keys)


@pytest.fixture
def function(
    site: Site, table: str, customer_env: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> Iterator[Function]:
    """What a customer deploys in AWS: the function's identity, a table, a secret, the roles."""
    account = site.account("aws").id
    management = site.inventory.aws[0].management_account
    name = f"opener-{uuid.uuid4().hex[:6]}"
    iam = boto3.client("iam", region_name=REGION)
    user = iam.create_user(UserName=name)["User"]["Arn"]
    policy = document("aws/function-policy.json", OPENER_ACCOUNT=management)
    own_table = table.rpartition("/")[2]
    iam.put_user_policy(
        UserName=name,
        PolicyName="opener",
        PolicyDocument=policy.replace("table/suture-opener", f"table/{own_table}"),
    )
    key = iam.create_access_key(UserName=name)["AccessKey"]
    secrets = boto3.client("secretsmanager", region_name=REGION)
    for secret in ("suture/gate-seed", "payroll"):
        secrets.create_secret(Name=secret, SecretString=SEED)
    admin = iam
    if account != management:
        taken = boto3.client("sts", region_name=REGION).assume_role(
            RoleArn=f"arn:aws:iam::{account}:role/OrganizationAccountAccessRole",
            RoleSessionName="customer",
        )["Credentials"]
        admin = boto3.client(
            "iam",
            region_name=REGION,
            aws_access_key_id=taken["AccessKeyId"],
            aws_secret_access_key=taken["SecretAccessKey"],
            aws_session_token=taken["SessionToken"],
        )
    trust = json.loads(document("aws/opener-trust.json", OPENER_ACCOUNT=management))
    trust["Statement"][0]["Principal"]["AWS"] = user  # a user here, a function's role there
    admin.create_role(RoleName="SutureOpener", AssumeRolePolicyDocument=json.dumps(trust))
    admin.put_role_policy(
        RoleName="SutureOpener",
        PolicyName="opener",
        PolicyDocument=document("aws/opener-policy.json"),
    )
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", key["AccessKeyId"])
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", key["SecretAccessKey"])
    keys = {
        "aws_access_key_id": key["AccessKeyId"],
        "aws_secret_access_key": key["SecretAccessKey"],
    }
    yield Function(keys, account, customer_env["AWS_ENDPOINT_URL"])
    admin.delete_role_policy(RoleName="SutureOpener", PolicyName="opener")
    admin.delete_role(RoleName="SutureOpener")
    for secret in ("suture/gate-seed", "payroll"):
        secrets.delete_secret(SecretId=secret, ForceDeleteWithoutRecovery=True)


@pytest.fixture
def lambda_opener(
    site: Site, function: Function, table: str, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Opener]:
    opener = opener_of(site, store=table, seed=f"secretsmanager://{REGION}/suture/gate-seed")
    monkeypatch.setattr(aws_lambda, "configured_opener", lambda: opener)
    yield opener
    configured_opener.cache_clear()


def event(body: Mapping[str, Any], path: str = "/open") -> dict[str, Any]:
    """What a function URL sends."""
    return {
        "version": "2.0",
        "rawPath": path,
        "requestContext": {"http": {"method": "POST", "path": path}},
        "body": json.dumps(body),
        "isBase64Encoded": False,
    }


@pytest.mark.usefixtures("lambda_opener")
def test_the_lambda_opens_and_closes_with_only_its_policies(site: Site, authenticator: Any) -> None:
    opened = aws_lambda.handler(event({"request": site.sign()}))
    assert opened["statusCode"] == HTTPStatus.OK, opened["body"]
    assert site.status().is_open
    closing = event({"request": site.sign(to=f"{URL}/close")}, "/close")
    assert aws_lambda.handler(closing)["statusCode"] == HTTPStatus.OK
    assert not site.status().is_open
    by_hand = event({"code": authenticator(), **site.about()})
    assert aws_lambda.handler(by_hand)["statusCode"] == HTTPStatus.OK  # the seed was read
    assert aws_lambda.handler(by_hand)["statusCode"] == HTTPStatus.UNAUTHORIZED  # and remembered
    assert aws_lambda.handler({"source": "aws.events", "detail-type": "Scheduled Event"}) == {}


TRUST = json.dumps(
    {
        "Version": "2012-10-17",
        "Statement": [{"Effect": "Allow", "Principal": "*", "Action": "sts:AssumeRole"}],
    }
)
ANYTHING = json.dumps(
    {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
)


def test_the_openers_role_can_write_nothing_else_in_an_account(function: Function) -> None:
    iam, ec2, s3 = (function.client(one, in_account=True) for one in ("iam", "ec2", "s3"))
    attempts = [
        lambda: iam.update_assume_role_policy(RoleName="SutureScanner", PolicyDocument=TRUST),
        lambda: iam.update_assume_role_policy(RoleName="SutureOpener", PolicyDocument=TRUST),
        lambda: iam.update_assume_role_policy(
            RoleName="OrganizationAccountAccessRole", PolicyDocument=TRUST
        ),
        lambda: iam.put_role_policy(
            RoleName="SutureRemediator", PolicyName="more", PolicyDocument=ANYTHING
        ),
        lambda: iam.attach_role_policy(
            RoleName="SutureRemediator", PolicyArn="arn:aws:iam::aws:policy/AdministratorAccess"
        ),
        lambda: iam.delete_role(RoleName="SutureRemediator"),
        lambda: iam.create_role(RoleName="Mine", AssumeRolePolicyDocument=TRUST),
        lambda: iam.create_user(UserName="me"),
        lambda: iam.update_account_password_policy(MinimumPasswordLength=6),
        lambda: ec2.enable_ebs_encryption_by_default(),
        lambda: s3.create_bucket(
            Bucket="mine", CreateBucketConfiguration={"LocationConstraint": REGION}
        ),
        lambda: s3.list_buckets(),
    ]
    assert [_code(one) for one in attempts] == ["AccessDenied"] * 9 + [
        "UnauthorizedOperation",
        "AccessDenied",
        "AccessDenied",
    ]


def test_the_function_itself_can_only_remember_and_read_its_secrets(
    function: Function, table: str
) -> None:
    sts, secrets, database, iam = (
        function.client(one) for one in ("sts", "secretsmanager", "dynamodb", "iam")
    )
    own = table.rpartition("/")[2]
    roles = f"arn:aws:iam::{function.account}:role/"
    others = ("OrganizationAccountAccessRole", "SutureRemediator", "SutureScanner")
    attempts = [
        *(
            partial(sts.assume_role, RoleArn=f"{roles}{one}", RoleSessionName="attack")
            for one in others
        ),
        lambda: secrets.get_secret_value(SecretId="payroll"),
        lambda: secrets.put_secret_value(SecretId="suture/gate-seed", SecretString="mine"),
        lambda: secrets.delete_secret(SecretId="suture/gate-seed"),
        lambda: database.delete_item(TableName=own, Key={"id": {"S": "x"}}),
        lambda: database.scan(TableName=own),
        lambda: database.delete_table(TableName=own),
        lambda: database.get_item(TableName="another", Key={"id": {"S": "x"}}),
        lambda: iam.create_access_key(UserName="admin"),
    ]
    assert all(_code(one) in ("AccessDenied", "AccessDeniedException") for one in attempts)


def _code(attempt: Any) -> str:
    with pytest.raises(ClientError) as caught:
        attempt()
    return str(caught.value.response["Error"]["Code"])


# --- Azure --------------------------------------------------------------------------------------


@dataclass
class Own:
    """The opener's identity in the tenant, and what it may ask ARM for."""

    principal: ServicePrincipal
    arm: Arm
    subscription: str
    remediator: str  # the principal's object id
    role: str  # the remediator's, its GUID


@pytest.fixture
def own(site: Site, monkeypatch: pytest.MonkeyPatch) -> Iterator[Own]:
    """What a customer deploys in Azure: two custom roles, given, one of them on a condition."""
    source, tenant = site.inventory.azure[0], site.fleet._azure.tenant
    told = site.fleet.description["azure"]
    subscription = f"/subscriptions/{site.account('azure').id}"
    opener = tenant.add_principal(
        ServicePrincipal(str(uuid.uuid4()), str(uuid.uuid4()), "suture-opener")
    )
    opener.add_secret("an-openers-secret-of-some-length")
    login = told["customer"]
    customer = ClientSecretCredential(
        source.tenant, login["client_id"], login["client_secret"], **identity_options(source)
    )
    admin = Arm(source, subscription.rpartition("/")[2], customer)
    home = source.remediator_identity.split("/resource")[0]
    role = source.remediator_role.rpartition("/")[2]
    remediator = told["remediator"]["principal_id"]
    condition = document(
        "azure/opener-condition.txt", REMEDIATOR_ROLE=role, REMEDIATOR_PRINCIPAL=remediator
    )
    for name, scope, where, on_condition in (
        (
            "opener-role",
            subscription,
            subscription,
            {"condition": condition, "conditionVersion": "2.0"},
        ),
        ("opener-identity-role", source.remediator_identity, home, {}),
    ):
        filled = json.loads(document(f"azure/{name}.json", SUBSCRIPTION=where.rpartition("/")[2]))
        filled["properties"]["roleName"] += f" {uuid.uuid4()}"
        made = f"{where}/providers/Microsoft.Authorization/roleDefinitions/{uuid.uuid4()}"
        admin.request("PUT", made, AUTHORIZATION, filled)
        given = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        properties = {
            "roleDefinitionId": made,
            "principalId": opener.object_id,
            "principalType": "ServicePrincipal",
            **on_condition,
        }
        admin.request("PUT", given, AUTHORIZATION, {"properties": properties})
    monkeypatch.setenv("AZURE_TENANT_ID", source.tenant)
    monkeypatch.setenv("AZURE_CLIENT_ID", opener.client_id)
    monkeypatch.setenv("AZURE_CLIENT_SECRET", "an-openers-secret-of-some-length")
    mine = ClientSecretCredential(
        source.tenant,
        opener.client_id,
        "an-openers-secret-of-some-length",
        **identity_options(source),
    )
    yield Own(
        opener, Arm(source, subscription.rpartition("/")[2], mine), subscription, remediator, role
    )
    customer.close()
    mine.close()


@pytest.mark.usefixtures("own")
def test_on_azure_it_opens_and_closes_with_only_its_roles(site: Site) -> None:
    site.opener = opener_of(site)
    status, answer = site.ask("azure")
    assert status == HTTPStatus.OK, answer
    assert site.status("azure").is_open
    site.opener.tick()
    closing = site.sign("azure", to=f"{URL}/close")
    assert site.post("/close", request=closing)[0] == HTTPStatus.OK
    assert not site.status("azure").is_open


def test_on_azure_it_can_write_nothing_else(site: Site, own: Own) -> None:
    resource = site.finding("azure")["resource"]
    roles = "providers/Microsoft.Authorization/roleDefinitions"
    ours = {
        "roleDefinitionId": f"{own.subscription}/{roles}/{own.role}",
        "principalId": own.remediator,
        "principalType": "ServicePrincipal",
    }
    owner = {**ours, "roleDefinitionId": f"{own.subscription}/{roles}/{OWNER}"}
    mine = {**ours, "principalId": own.principal.object_id}
    freed = {**mine, "condition": None, "roleDefinitionId": owner["roleDefinitionId"]}
    attempts = [
        _assignment(own, own.subscription, owner),
        _assignment(own, own.subscription, mine),
        _assignment(own, resource, owner),
        _assignment(own, resource, mine),
        _assignment(own, own.subscription, freed),
        ("PUT", f"{own.subscription}/{roles}/{uuid.uuid4()}", AUTHORIZATION, {"properties": {}}),
        ("PUT", f"{own.subscription}/{roles}/{own.role}", AUTHORIZATION, {"properties": {}}),
        ("PATCH", resource, "2023-05-01", {"properties": {"supportsHttpsTrafficOnly": False}}),
        ("DELETE", resource, "2023-05-01", None),
        ("GET", resource, "2023-05-01", None),
        ("DELETE", site.inventory.azure[0].remediator_identity, IDENTITY, None),
        *(
            ("DELETE", _id_of(one), AUTHORIZATION, None)
            for one in site.fleet._azure.tenant.access.all()
            if one.scope == own.subscription and one.principal != own.remediator
        ),
    ]
    assert len(attempts) > 12
    for method, target, version, body in attempts:
        with pytest.raises(AccessRefused):
            own.arm.request(method, target, version, body)
    # What it may do, so that the refusals above are not for another reason.
    method, target, version, body = _assignment(own, resource, ours)
    own.arm.request(method, target, version, body)
    own.arm.request("DELETE", target, version)


def _assignment(own: Own, scope: str, properties: Mapping[str, Any]) -> tuple[str, str, str, Any]:
    target = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
    return "PUT", target, AUTHORIZATION, {"properties": dict(properties)}


def _id_of(assignment: Any) -> str:
    kind = "providers/Microsoft.Authorization/roleAssignments"
    return f"{assignment.scope}/{kind}/{assignment.name}"
