"""After all the other tests: typed codes are nowhere, and the scanner never could write.

Its name sorts it last in this folder on purpose: what the others typed is looked for, too.
"""

from __future__ import annotations

import json
from typing import Any

import boto3
import httpx
import pytest
from azure.identity import ClientSecretCredential
from botocore.exceptions import ClientError

from deployments.local.at_rest import bytes_in_files, bytes_in_rows
from tasks.warehouse.database import connect

pytestmark = pytest.mark.slow

AWS_RDP = "aws_ec2_security_group_rdp_not_open"
AZURE_SSH = "azure_network_security_group_ssh_not_open"


def test_typed_codes_are_nowhere_at_rest_and_nowhere_in_the_api(fleet: Any) -> None:
    (finding,) = fleet.take(AWS_RDP)
    run_id = fleet.start_and_wait([finding])
    assert fleet.approve(run_id)["name"] == "Remediated"
    assert fleet.codes

    fleet.stack.write_everything_out()
    assert bytes_in_files(fleet.stack.dir, fleet.codes) == 0
    for database in ("prefect", "warehouse"):
        with connect(fleet.stack.postgres.url(database, role="postgres")) as rows:
            assert bytes_in_rows(rows, fleet.codes) == 0
    for what in ("flow_runs", "task_runs", "logs", "artifacts", "flow_run_states"):
        text = everything(fleet, what)
        assert len(text) > 2, f"no {what}: the search would prove nothing"
        assert [code for code in fleet.codes if f'"{code}' in text or f" {code}" in text] == []


def everything(fleet: Any, what: str) -> str:
    """All rows of a kind that Prefect's API gives, as text."""
    if what == "flow_run_states":
        runs = page_through(fleet, "flow_runs")
        states = [
            httpx.get(
                f"{fleet.stack.api_url}/flow_run_states/",
                params={"flow_run_id": run["id"]},
                trust_env=False,
            ).json()
            for run in runs[:30]
        ]
        return json.dumps(states)
    return json.dumps(page_through(fleet, what))


def page_through(fleet: Any, what: str) -> list[Any]:
    rows: list[Any] = []
    while True:
        page = httpx.post(
            f"{fleet.stack.api_url}/{what}/filter",
            json={"limit": 200, "offset": len(rows)},
            trust_env=False,
            timeout=30,
        ).json()
        rows += page
        if len(page) < 200:
            return rows


def test_the_aws_scanner_is_refused_every_write(fleet: Any) -> None:
    finding = fleet.open_findings("aws_ec2_security_group_ssh_not_open")[0]
    aws = fleet.stack.fleet["aws"]
    options = {"endpoint_url": aws["endpoint"], "region_name": finding.region}
    hub = boto3.client(
        "sts",
        aws_access_key_id=aws["hub"]["access_key_id"],
        aws_secret_access_key=aws["hub"]["secret_access_key"],
        **options,
    )
    role = f"arn:aws:iam::{finding.account}:role/{aws['scanner_role']}"
    keys = hub.assume_role(RoleArn=role, RoleSessionName="scanner", ExternalId=aws["external_id"])[
        "Credentials"
    ]
    session = boto3.Session(
        aws_access_key_id=keys["AccessKeyId"],
        aws_secret_access_key=keys["SecretAccessKey"],
        aws_session_token=keys["SessionToken"],
    )
    group = finding.resource.rpartition("/")[2]
    ec2, iam = session.client("ec2", **options), session.client("iam", **options)
    assert ec2.describe_security_groups(GroupIds=[group])["SecurityGroups"]
    before = fleet.now(finding).fingerprint
    permission = {
        "IpProtocol": "tcp",
        "FromPort": 1,
        "ToPort": 2,
        "IpRanges": [{"CidrIp": "192.0.2.0/24"}],
    }
    writes = [
        lambda: ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[permission]),
        lambda: ec2.enable_ebs_encryption_by_default(),
        lambda: iam.update_account_password_policy(MinimumPasswordLength=20),
        lambda: iam.update_assume_role_policy(RoleName=aws["remediator_role"], PolicyDocument="{}"),
        lambda: hub.assume_role(
            RoleArn=role.replace(aws["scanner_role"], aws["remediator_role"]),
            RoleSessionName="scanner",
            ExternalId=aws["external_id"],
        ),
    ]
    for write in writes:
        with pytest.raises(ClientError) as refused:
            write()
        assert refused.value.response["Error"]["Code"] in {
            "AccessDenied",
            "AccessDeniedException",
            "UnauthorizedOperation",
        }
    assert fleet.now(finding).fingerprint == before
    for client in (hub, ec2, iam):
        client.close()


def test_the_azure_scanner_is_refused_every_write(fleet: Any) -> None:
    finding = fleet.open_findings(AZURE_SSH)[0]
    azure = fleet.stack.fleet["azure"]
    before = fleet.now(finding).fingerprint
    with ClientSecretCredential(
        azure["tenant"],
        azure["scanner"]["client_id"],
        azure["scanner"]["client_secret"],
        authority=azure["authority"],
        disable_instance_discovery=True,
        connection_verify=fleet.stack.fleet["ca_file"],
    ) as credential:
        token = credential.get_token(azure["audience"] + "/.default").token
    base = azure["resource_manager"]
    network, roles = "api-version=2024-05-01", "api-version=2022-04-01"
    identities = "api-version=2023-01-31"
    name = "00000000-0000-4000-8000-000000000001"
    identity = azure["remediator"]["resource_id"]
    with httpx.Client(
        verify=ssl_of(fleet), headers={"Authorization": f"Bearer {token}"}, trust_env=False
    ) as arm:
        read = arm.get(f"{base}{finding.resource}?{network}")
        assert read.is_success, read.text
        group = read.json()
        answers = [
            arm.put(f"{base}{finding.resource}?{network}", json=group),
            arm.delete(f"{base}{finding.resource}?{network}"),
            arm.put(
                f"{base}{finding.resource}/providers/Microsoft.Authorization/roleAssignments/{name}"
                f"?{roles}",
                json={
                    "properties": {
                        "roleDefinitionId": azure["remediator_role_definition_id"],
                        "principalId": azure["remediator"]["principal_id"],
                    }
                },
            ),
            arm.put(
                f"{base}{identity}/federatedIdentityCredentials/mine?{identities}",
                json={
                    "properties": {
                        "issuer": fleet.stack.fleet["issuer"]["url"],
                        "subject": f"{azure['gate_id']}:111111",
                        "audiences": ["api://AzureADTokenExchange"],
                    }
                },
            ),
        ]
    assert [answer.status_code for answer in answers] == [403] * 4
    assert fleet.now(finding).fingerprint == before


def ssl_of(fleet: Any) -> Any:
    import ssl

    return ssl.create_default_context(cafile=fleet.stack.fleet["ca_file"])
