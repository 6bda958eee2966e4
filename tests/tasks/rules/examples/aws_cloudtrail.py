"""CloudTrail's rules: examples, what CloudTrail makes of their calls, and how to plant them."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

from tasks.model import Call

ARN = "arn:aws:cloudtrail:eu-central-1:111122223333:trail/main"
KEY_ARN = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"
ALIAS = "alias/for-the-trail"
DEFAULT = {
    "ReadWriteType": "All",
    "IncludeManagementEvents": True,
    "DataResources": [],
    "ExcludeManagementEventSources": [],
}
_numbers = itertools.count(1)


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    if call.operation == "PutEventSelectors":
        assert params.pop("TrailName") == config["TrailARN"]
        assert len(params) == 1
        assert len(params.get("EventSelectors", ())) <= 5
        config["Selectors"] = {"EventSelectors": [], "AdvancedEventSelectors": [], **params}
        return
    assert call.operation == "UpdateTrail"
    assert params.pop("Name") == config["TrailARN"]
    if "EnableLogFileValidation" in params:
        config["LogFileValidationEnabled"] = params.pop("EnableLogFileValidation")
    if "KmsKeyId" in params:
        config["KmsKeyId"] = KEY_ARN if params.pop("KmsKeyId") else None
    config |= params
    if params.get("IsMultiRegionTrail"):
        assert config["IncludeGlobalServiceEvents"]


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    number = next(_numbers)
    bucket = f"trail-{cloud.account}-{number}"
    cloud.client("s3").create_bucket(
        Bucket=bucket, CreateBucketConfiguration={"LocationConstraint": "eu-central-1"}
    )
    kms, trail = cloud.client("kms"), cloud.client("cloudtrail")
    if ALIAS not in [one["AliasName"] for one in kms.list_aliases()["Aliases"]]:
        kms.create_alias(AliasName=ALIAS, TargetKeyId=kms.create_key()["KeyMetadata"]["KeyId"])
    made = trail.create_trail(
        Name=f"trail-{number}",
        S3BucketName=bucket,
        IsMultiRegionTrail=config["IsMultiRegionTrail"],
        IncludeGlobalServiceEvents=config["IncludeGlobalServiceEvents"],
        EnableLogFileValidation=config["LogFileValidationEnabled"],
    )
    for name, selectors in config["Selectors"].items():
        if selectors:
            trail.put_event_selectors(TrailName=made["TrailARN"], **{name: selectors})
    return str(made["TrailARN"])


def objects(read_write: str, *values: str, **more: Any) -> dict[str, Any]:
    data = {"Type": "AWS::S3::Object", "Values": list(values)}
    return {**DEFAULT, "ReadWriteType": read_write, "DataResources": [data], **more}


def advanced(*conditions: tuple[str, str, str]) -> dict[str, Any]:
    fields = [{"Field": field, test: [value]} for field, test, value in conditions]
    return {"Name": "own", "FieldSelectors": fields}


S3_DATA = (("eventCategory", "Equals", "Data"), ("resources.type", "Equals", "AWS::S3::Object"))
MANAGEMENT = advanced(("eventCategory", "Equals", "Management"))


def selected(*basic: Any, richer: tuple[Any, ...] = ()) -> dict[str, Any]:
    return {"EventSelectors": list(basic), "AdvancedEventSelectors": list(richer)}


def trail(**parts: Any) -> dict[str, Any]:
    return copy.deepcopy(
        {
            "Name": "main",
            "TrailARN": ARN,
            "S3BucketName": "trail-bucket",
            "IncludeGlobalServiceEvents": True,
            "IsMultiRegionTrail": True,
            "IsOrganizationTrail": False,
            "KmsKeyId": KEY_ARN,
            "LogFileValidationEnabled": True,
            "Selectors": selected(DEFAULT),
            **parts,
        }
    )


def events(kind: str, other: str, read_only: str) -> tuple[list[Any], list[Any], str]:
    """Examples of a rule on S3's data events, of which ``read_only`` tells ``kind`` apart."""
    mine = ("readOnly", "Equals", read_only)
    one_bucket = ("resources.ARN", "StartsWith", "arn:aws:s3:::one/")
    passing = [
        selected(objects("All", "arn:aws:s3")),
        selected(DEFAULT, objects(kind, "arn:aws:s3:::one/", "arn:aws:s3:::")),
        selected(richer=(MANAGEMENT, advanced(*S3_DATA, mine))),
        selected(richer=(advanced(*S3_DATA),)),
    ]
    failing = [
        selected(DEFAULT),
        selected(DEFAULT, objects(other, "arn:aws:s3")),
        selected(objects("All", "arn:aws:s3:::one/")),
        selected(objects("All", "arn:aws:lambda")),
        selected(richer=(MANAGEMENT,)),
        selected(richer=(MANAGEMENT, advanced(*S3_DATA, one_bucket))),
        selected(
            richer=(
                advanced(*S3_DATA, ("readOnly", "NotEquals", read_only)),
                advanced(*S3_DATA, ("eventName", "Equals", "GetObject")),
            )
        ),
    ]
    return (
        [trail(Selectors=one) for one in passing],
        [trail(Selectors=one) for one in failing],
        "Selectors",
    )


EXAMPLES: dict[str, Any] = {
    "aws_cloudtrail_trail_log_files_validated": (
        [trail()],
        [trail(LogFileValidationEnabled=False)],
        "LogFileValidationEnabled",
    ),
    "aws_cloudtrail_trail_kms_encrypted": ([trail()], [trail(KmsKeyId=None)], "KmsKeyId"),
    "aws_cloudtrail_trail_every_region_recorded": (
        [trail()],
        [
            trail(IsMultiRegionTrail=False, IncludeGlobalServiceEvents=False),
            trail(IsMultiRegionTrail=False),
        ],
        "IsMultiRegionTrail",
    ),
    "aws_cloudtrail_trail_s3_writes_recorded": events("WriteOnly", "ReadOnly", "false"),
    "aws_cloudtrail_trail_s3_reads_recorded": events("ReadOnly", "WriteOnly", "true"),
}
KINDS: dict[str, Any] = {
    "aws.cloudtrail.trail": {
        "id": ARN,
        "apply": apply,
        "plant": plant,
        "values": {"kms_key": ALIAS},
    },
}
