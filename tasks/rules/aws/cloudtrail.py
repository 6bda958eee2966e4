"""CloudTrail's rules: what a trail records, and how far its log files can be trusted."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Fix, Predicate, Resource, Rule, Severity, Step
from tasks.rules.aws.keys import key_input, wanted_key
from tasks.rules.aws.switch import becomes, switch
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, odd, sequence, text

_KIND = "aws.cloudtrail.trail"
_READ = ("cloudtrail:DescribeTrails",)


def _trail(resource: Resource) -> Mapping[str, Any]:
    """By its ARN: the name alone means a trail of the region that is asked."""
    return {"Name": text(resource.config["TrailARN"], "TrailARN")}


def _on(resource: Resource, name: str) -> bool:
    return flag(resource.config[name], name)


# --- validation, and every region ---------------------------------------------------------------


def validates(resource: Resource) -> bool:
    """Signed digests tell whether a log file was changed or taken away."""
    return _on(resource, "LogFileValidationEnabled")


def records_every_region(resource: Resource) -> bool:
    """One trail for all regions, those to come included."""
    return _on(resource, "IsMultiRegionTrail")


def _regions_as_they_were(resource: Resource) -> Mapping[str, Any]:
    """CloudTrail takes no trail for every region without the events of global services."""
    return {
        "IsMultiRegionTrail": False,
        "IncludeGlobalServiceEvents": _on(resource, "IncludeGlobalServiceEvents"),
    }


def _regions_change(resource: Resource) -> tuple[Change, ...]:
    every = Change("IsMultiRegionTrail", "its own region only", "every region")
    if _on(resource, "IncludeGlobalServiceEvents"):
        return (every,)
    return (every, Change("IncludeGlobalServiceEvents", "off", "on: IAM, STS, CloudFront"))


# --- encryption ---------------------------------------------------------------------------------

KEY = key_input(required=True)
_KEY_ARN = re.compile(r"arn:aws[\w-]*:kms:[\w-]+:\d{12}:key/[\w-]+")


def encrypts(resource: Resource) -> bool:
    """Log files are encrypted with a key of the customer's, not S3's."""
    key = resource.config["KmsKeyId"]
    if key is None:
        return False
    if not _KEY_ARN.fullmatch(text(key, "KmsKeyId")):
        raise odd("KmsKeyId")
    return True


def encrypt(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Sets the approver's key; the undo goes back to S3's own."""
    if encrypts(resource):
        return ()
    key = wanted_key(values, KEY)
    named = _trail(resource)
    return (
        Step(
            "cloudtrail:UpdateTrail",
            Call(Cloud.AWS, "cloudtrail", "UpdateTrail", {**named, "KmsKeyId": key}),
            (Call(Cloud.AWS, "cloudtrail", "UpdateTrail", {**named, "KmsKeyId": ""}),),
            (Change("KmsKeyId", "none: S3's own encryption", key),),
        ),
    )


# --- data events of S3 --------------------------------------------------------------------------

_MOST_SELECTORS = 5  # basic ones; advanced ones are not counted but by their conditions
_OBJECTS = "AWS::S3::Object"


def _selectors(resource: Resource, name: str) -> Sequence[Any]:
    selectors = mapping(resource.config["Selectors"], "Selectors")
    return sequence(selectors.get(name), f"Selectors.{name}")


def records_objects(kind: str) -> Predicate:
    """A predicate: the trail records every ``kind`` ("Read" or "Write") of any bucket's objects."""

    def records(resource: Resource) -> bool:
        basic = [_basic(one, kind) for one in _selectors(resource, "EventSelectors")]
        advanced = [_advanced(one, kind) for one in _selectors(resource, "AdvancedEventSelectors")]
        return any([*basic, *advanced])

    return records


def _basic(selector: Any, kind: str) -> bool:
    known = mapping(selector, "Selectors.EventSelectors")
    recorded = text(known.get("ReadWriteType", "All"), "Selectors.EventSelectors.ReadWriteType")
    found = False
    for one in sequence(known.get("DataResources", []), "Selectors.EventSelectors.DataResources"):
        data = mapping(one, "Selectors.EventSelectors.DataResources")
        values = sequence(data.get("Values", []), "Selectors.EventSelectors.DataResources.Values")
        found |= data.get("Type") == _OBJECTS and any(_every_bucket(value) for value in values)
    return found and recorded in ("All", f"{kind}Only")


def _every_bucket(value: Any) -> bool:
    return isinstance(value, str) and re.fullmatch(r"arn:aws[\w-]*:s3(:::)?", value) is not None


def _advanced(selector: Any, kind: str) -> bool:
    """Data events of S3's objects, held down by nothing but whether they read or write."""
    part = "Selectors.AdvancedEventSelectors"
    fields = sequence(mapping(selector, part).get("FieldSelectors"), part)
    conditions: dict[str, Any] = {}
    for one in fields:
        field = mapping(one, part)
        name = text(field.get("Field"), part)
        tests = {key: value for key, value in field.items() if key != "Field" and value}
        if name in conditions:
            return False  # two conditions on one field: more than is read here
        conditions[name] = tests
    read_only = conditions.pop("readOnly", None)
    return conditions == {
        "eventCategory": {"Equals": ["Data"]},
        "resources.type": {"Equals": [_OBJECTS]},
    } and read_only in (None, {"Equals": ["true" if kind == "Read" else "false"]})


def record_objects(kind: str) -> Fix:
    """A planner that adds one selector beside those that are there, in their own form."""
    passes = records_objects(kind)

    def record(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        basic = _selectors(resource, "EventSelectors")
        advanced = _selectors(resource, "AdvancedEventSelectors")
        if advanced and basic:
            raise BadInput(
                "Selectors",
                "has both forms of event selectors, of which CloudTrail takes one at a time.",
                "Follow the guide of this rule by hand.",
            )
        if advanced:
            name, old, new = "AdvancedEventSelectors", advanced, _new_advanced(kind)
        else:
            name, old, new = "EventSelectors", basic, _new_basic(kind, resource)
        if not old or (not advanced and len(old) >= _MOST_SELECTORS):
            raise BadInput(
                "Selectors",
                "has no room for one more event selector, or none to go back to.",
                "Merge the trail's event selectors by hand first.",
            )

        def put(selectors: Sequence[Any]) -> Call:
            named = {"TrailName": text(resource.config["TrailARN"], "TrailARN")}
            return Call(
                Cloud.AWS, "cloudtrail", "PutEventSelectors", {**named, name: list(selectors)}
            )

        change = Change(
            f"{name}, one more",
            f"not there, beside {len(old)} that stay",
            f"every {kind.lower()} of an object in any bucket of the account",
        )
        return (Step("cloudtrail:PutEventSelectors", put([*old, new]), (put(old),), (change,)),)

    return record


def _new_basic(kind: str, resource: Resource) -> Mapping[str, Any]:
    partition = resource.id.split(":")[1]
    return {
        "ReadWriteType": f"{kind}Only",
        "IncludeManagementEvents": False,
        "DataResources": [{"Type": _OBJECTS, "Values": [f"arn:{partition}:s3"]}],
        "ExcludeManagementEventSources": [],
    }


def _new_advanced(kind: str) -> Mapping[str, Any]:
    read_only = "true" if kind == "Read" else "false"
    return {
        "Name": f"Suture: every {kind.lower()} of S3 objects",
        "FieldSelectors": [
            {"Field": "eventCategory", "Equals": ["Data"]},
            {"Field": "resources.type", "Equals": [_OBJECTS]},
            {"Field": "readOnly", "Equals": [read_only]},
        ],
    }


def _objects_rule(kind: str, matters: str, aka: tuple[str, ...]) -> Rule:
    what = kind.lower()
    return Rule(
        id=f"aws_cloudtrail_trail_s3_{what}s_recorded",
        kind=_KIND,
        severity=Severity.LOW,
        title=f"CloudTrail trail records every {what} of S3 objects",
        passes=records_objects(kind),
        fix=record_objects(kind),
        reads=(*_READ, "cloudtrail:GetEventSelectors"),
        writes=("cloudtrail:PutEventSelectors",),
        events=("cloudtrail:CreateTrail", "cloudtrail:PutEventSelectors"),
        aka=aka,
        guide=written(
            means=f"""No event selector of the trail takes in the {what}s of objects in every S3
                bucket. Trails record management events only, unless they are told.""",
            matters=matters,
            console=f"""CloudTrail > Trails > the trail > Data events > Edit > S3, all current and
                future buckets, {kind}.""",
            cli=f"""
                aws cloudtrail get-event-selectors --trail-name TRAIL
                # Put back all of them, with one more: what is not sent again is gone.
                aws cloudtrail put-event-selectors --trail-name TRAIL --event-selectors \\
                    OLD '{{"ReadWriteType":"{kind}Only","IncludeManagementEvents":false,
                    "DataResources":[{{"Type":"{_OBJECTS}","Values":["arn:aws:s3"]}}]}}'""",
            terraform=f"""
                resource "aws_cloudtrail" "this" {{
                  event_selector {{
                    read_write_type           = "{kind}Only"
                    include_management_events = false
                    data_resource {{
                      type   = "{_OBJECTS}"
                      values = ["arn:aws:s3"]
                    }}
                  }}
                }}""",
            fix=f"""It adds one selector for the {what}s of all S3 objects, in the form that the
                trail uses, and sends every other selector again as it was. It refuses where the
                trail has five basic selectors already.""",
            breaks="""Nothing stops working, but CloudTrail charges for each data event, and busy
                buckets have very many. The bucket that the trail itself writes to is recorded as
                well: leave it out by an advanced selector where the volume matters.""",
        ),
    )


RULES = (
    Rule(
        id="aws_cloudtrail_trail_log_files_validated",
        kind=_KIND,
        severity=Severity.MEDIUM,
        title="CloudTrail trail signs digests of its log files",
        passes=validates,
        fix=switch(
            "cloudtrail:UpdateTrail",
            "cloudtrail",
            "UpdateTrail",
            passes=validates,
            names=_trail,
            good={"EnableLogFileValidation": True},
            old=lambda _resource: {"EnableLogFileValidation": False},
            changes=becomes("LogFileValidationEnabled", "off", "on: an hourly signed digest"),
        ),
        reads=_READ,
        writes=("cloudtrail:UpdateTrail",),
        events=("cloudtrail:CreateTrail", "cloudtrail:UpdateTrail"),
        aka=(
            "cloudsploit:cloudtrailFileValidation",
            "prowler:cloudtrail_log_file_validation_enabled",
            "securityhub:CloudTrail.4",
            "cis-aws-6.0:4.2",
        ),
        guide=written(
            means="""CloudTrail does not write digests of this trail's log files, so that nobody can
                prove that a file is as it was delivered.""",
            matters="""Whoever may write to the bucket can change what the log says. Digests are
                signed with a key of AWS's: a changed or missing file shows.""",
            console="""CloudTrail > Trails > the trail > General details > Edit > Log file
                validation > Enabled.""",
            cli="""
                aws cloudtrail update-trail --name TRAIL --enable-log-file-validation
                aws cloudtrail validate-logs --trail-arn ARN --start-time TIME""",
            terraform="""
                resource "aws_cloudtrail" "this" {
                  enable_log_file_validation = true
                }""",
            fix="It turns validation on. Every other setting of the trail stays.",
            breaks="""Nothing. CloudTrail writes one small digest an hour into the same bucket;
                files from before are not covered.""",
            back="""Suture's undo turns validation off again. Digests that were written stay.""",
        ),
    ),
    Rule(
        id="aws_cloudtrail_trail_kms_encrypted",
        kind=_KIND,
        severity=Severity.MEDIUM,
        title="CloudTrail trail encrypts its log files with a KMS key",
        passes=encrypts,
        fix=encrypt,
        inputs=(KEY,),
        reads=_READ,
        writes=("cloudtrail:UpdateTrail",),
        events=("cloudtrail:CreateTrail", "cloudtrail:UpdateTrail"),
        aka=(
            "cloudsploit:cloudtrailEncryption",
            "prowler:cloudtrail_kms_encryption_enabled",
            "securityhub:CloudTrail.2",
            "cis-aws-6.0:4.5",
        ),
        guide=written(
            means="""The trail's log files are encrypted with S3's own key: whoever may read the
                bucket can read the log.""",
            matters="""With a KMS key, reading takes two permissions, of which the key's owner gives
                one, and each decryption is recorded.""",
            console="""CloudTrail > Trails > the trail > General details > Edit > Log file SSE-KMS
                encryption > Enabled > an existing key.""",
            cli="aws cloudtrail update-trail --name TRAIL --kms-key-id KEY",
            terraform="""
                resource "aws_cloudtrail" "this" {
                  kms_key_id = aws_kms_key.trail.arn
                }""",
            fix="""It sets the key that the approver names. The key must be in the region of the
                trail's bucket, and its policy must let cloudtrail.amazonaws.com encrypt for this
                trail: else CloudTrail refuses, and nothing changes.""",
            breaks="""Readers of the log without kms:Decrypt on the key, such as an analysis tool,
                can read no new files. Give it to them first. Old files stay as they are.""",
            back="""Suture's undo takes the key away: new files have S3's own encryption again.
                Files that were written meanwhile stay under the key, which must be kept.""",
        ),
    ),
    Rule(
        id="aws_cloudtrail_trail_every_region_recorded",
        kind=_KIND,
        severity=Severity.HIGH,
        title="CloudTrail trail records every region",
        passes=records_every_region,
        fix=switch(
            "cloudtrail:UpdateTrail",
            "cloudtrail",
            "UpdateTrail",
            passes=records_every_region,
            names=_trail,
            good={"IsMultiRegionTrail": True, "IncludeGlobalServiceEvents": True},
            old=_regions_as_they_were,
            changes=_regions_change,
        ),
        reads=_READ,
        writes=("cloudtrail:UpdateTrail",),
        events=("cloudtrail:CreateTrail", "cloudtrail:UpdateTrail"),
        aka=("prowler:cloudtrail_multi_region_enabled", "cis-aws-6.0:4.1"),
        guide=written(
            means="""The trail records the events of its own region only.""",
            matters="""Intruders like regions that nobody uses, because nobody looks there. A trail
                for every region records them too, and those that AWS will open.""",
            console="""CloudTrail > Trails > the trail. The console only makes trails for every
                region; one for a single region is changed by the command line.""",
            cli="aws cloudtrail update-trail --name TRAIL --is-multi-region-trail",
            terraform="""
                resource "aws_cloudtrail" "this" {
                  is_multi_region_trail         = true
                  include_global_service_events = true
                }""",
            fix="""It makes the trail one for every region, and has it record the events of global
                services, without which CloudTrail does not allow that.""",
            breaks="""Nothing stops working. A second trail that records the same management events
                is charged for, so that trails of single regions beside it may cost twice.""",
            back="""Suture's undo makes it a trail of its own region again, and puts the setting for
                global services back.""",
        ),
    ),
    _objects_rule(
        "Write",
        """Who overwrote or deleted data, and from where, cannot be told afterwards without
        them: PutObject and DeleteObject are data events.""",
        ("prowler:cloudtrail_s3_dataevents_write_enabled", "cis-aws-6.0:4.8"),
    ),
    _objects_rule(
        "Read",
        """After a leak the first question is what was read. GetObject is a data event: without
        them there is no answer.""",
        ("prowler:cloudtrail_s3_dataevents_read_enabled", "cis-aws-6.0:4.9"),
    ),
)
