"""What AWS answers of settings that nobody has made, where that is not an empty success.

For an account that has nothing: what has a default says it, and what has none is an error of its
own. By botocore's models and AWS's references.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson
from botocore.model import OperationModel
from fleet_aws import ACCOUNT
from messages import JSON, JSON_1_1, REQUEST_ID, XML, aws_error, message, xml

_EC2 = "http://ec2.amazonaws.com/doc/2016-11-15/"
_IAM = "https://iam.amazonaws.com/doc/2010-05-08/"


def unset_answer(operation: OperationModel, account: bytes) -> bytes | None:
    """The whole answer of an account that never set it; None where an empty success is right."""
    template = _ANSWERS.get((operation.service_model.service_name, operation.name))
    return None if template is None else template.replace(ACCOUNT.encode(), account)


def _ec2(operation: str, inner: str) -> bytes:
    body = xml(
        f'<{operation}Response xmlns="{_EC2}"><requestId>{REQUEST_ID}</requestId>'
        f"{inner}<managedBy>account</managedBy></{operation}Response>"
    )
    return message(200, XML, body, x_amzn_RequestId=REQUEST_ID)


def _summary(counts: Mapping[str, int]) -> bytes:
    entries = "".join(
        f"<entry><key>{name}</key><value>{count}</value></entry>" for name, count in counts.items()
    )
    body = xml(
        f'<GetAccountSummaryResponse xmlns="{_IAM}"><GetAccountSummaryResult>'
        f"<SummaryMap>{entries}</SummaryMap></GetAccountSummaryResult><ResponseMetadata>"
        f"<RequestId>{REQUEST_ID}</RequestId></ResponseMetadata></GetAccountSummaryResponse>"
    )
    return message(200, XML, body, x_amzn_RequestId=REQUEST_ID)


def _json(content_type: str, body: dict[str, Any]) -> bytes:
    return message(200, content_type, orjson.dumps(body), x_amzn_RequestId=REQUEST_ID)


_ANSWERS: dict[tuple[str, str], bytes] = {
    ("ec2", "GetSnapshotBlockPublicAccessState"): _ec2(
        "GetSnapshotBlockPublicAccessState", "<state>unblocked</state>"
    ),
    # Since the autumn of 2023 EC2 blocks by itself where an account has no public images.
    ("ec2", "GetImageBlockPublicAccessState"): _ec2(
        "GetImageBlockPublicAccessState",
        "<imageBlockPublicAccessState>block-new-sharing</imageBlockPublicAccessState>",
    ),
    ("s3control", "GetPublicAccessBlock"): aws_error(
        "s3",
        404,
        "NoSuchPublicAccessBlockConfiguration",
        "The public access block configuration was not found",
        AccountId=ACCOUNT,
    ),
    ("securityhub", "DescribeHub"): aws_error(
        "json",
        401,
        "InvalidAccessException",
        f"Account {ACCOUNT} is not subscribed to AWS Security Hub",
    ),
    # The root user has a password, no keys and no MFA, as it is when an account is made.
    ("iam", "GetAccountSummary"): _summary(
        {
            **dict.fromkeys(("Users", "Groups", "Roles", "Policies", "Providers"), 0),
            **dict.fromkeys(("ServerCertificates", "InstanceProfiles", "MFADevices"), 0),
            **dict.fromkeys(("MFADevicesInUse", "AccountMFAEnabled"), 0),
            **dict.fromkeys(("AccountAccessKeysPresent", "AccountSigningCertificatesPresent"), 0),
            "AccountPasswordPresent": 1,
            "GlobalEndpointTokenVersion": 1,
            "UsersQuota": 5000,
            "GroupsQuota": 300,
            "RolesQuota": 1000,
            "PoliciesQuota": 1500,
        }
    ),
    ("xray", "GetEncryptionConfig"): _json(
        JSON, {"EncryptionConfig": {"KeyId": None, "Status": "ACTIVE", "Type": "NONE"}}
    ),
    ("glue", "GetDataCatalogEncryptionSettings"): _json(
        JSON_1_1,
        {
            "DataCatalogEncryptionSettings": {
                "EncryptionAtRest": {"CatalogEncryptionMode": "DISABLED"},
                "ConnectionPasswordEncryption": {"ReturnConnectionPasswordEncrypted": False},
            }
        },
    ),
}
