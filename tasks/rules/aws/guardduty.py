"""GuardDuty's rules: it looks on in every region."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step, made
from tasks.rules.guide import written
from tasks.rules.shape import odd

_STATES = ("ENABLED", "DISABLED")


def _status(resource: Resource) -> str | None:
    status = resource.config["Status"]
    if status is not None and (not isinstance(status, str) or status not in _STATES):
        raise odd("Status")
    return status


def detects(resource: Resource) -> bool:
    """The region has a detector, and it is not suspended."""
    return _status(resource) == "ENABLED"


def detect(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Makes a detector, or goes on with one that is suspended.

    The undo deletes the one that was made: its id is what GuardDuty answered.
    """
    if detects(resource):
        return ()
    detector = {"DetectorId": made("DetectorId")}
    if _status(resource) is None:
        return (
            Step(
                "guardduty:CreateDetector",
                _call("CreateDetector", Enable=True),
                (_call("DeleteDetector", **detector),),
                (Change("detector", "none", "one, with GuardDuty's own choice of features"),),
            ),
        )
    return (
        Step(
            "guardduty:UpdateDetector",
            _call("UpdateDetector", **detector, Enable=True),
            (_call("UpdateDetector", **detector, Enable=False),),
            (Change("detector", "suspended", "at work"),),
        ),
    )


def _call(operation: str, **params: Any) -> Call:
    return Call(Cloud.AWS, "guardduty", operation, params)


RULES = (
    Rule(
        id="aws_guardduty_detector_enabled",
        kind="aws.guardduty.detector",
        severity=Severity.MEDIUM,
        title="GuardDuty is on in the region",
        passes=detects,
        fix=detect,
        reads=("guardduty:ListDetectors", "guardduty:GetDetector"),
        writes=(
            "guardduty:CreateDetector",
            "guardduty:UpdateDetector",
            "guardduty:DeleteDetector",
        ),
        events=(
            "guardduty:CreateDetector",
            "guardduty:UpdateDetector",
            "guardduty:DeleteDetector",
        ),
        aka=("prowler:guardduty_is_enabled", "securityhub:GuardDuty.1"),
        guide=written(
            means="""The region has no GuardDuty detector, or the one that it has is suspended.""",
            matters="""GuardDuty reads CloudTrail, flow logs and DNS logs for signs of an intruder:
                keys that are used from elsewhere, instances that mine coins, data that leaves. It
                sees a region only where it is on, unused ones included.""",
            console="GuardDuty, in the region > Get started > Enable GuardDuty.",
            cli="""
                aws guardduty create-detector --enable --region REGION
                # or, where there is one:
                aws guardduty update-detector --detector-id ID --enable --region REGION""",
            terraform="""
                resource "aws_guardduty_detector" "this" {
                  enable = true
                }""",
            fix="""It makes a detector, with the features that GuardDuty turns on by itself, or goes
                on with the one that is suspended. An account that has never had GuardDuty needs its
                service-linked role first, which a remediator must not make: aws iam
                create-service-linked-role --aws-service-name guardduty.amazonaws.com""",
            breaks="""Nothing stops working. GuardDuty charges by what it reads, after 30 days on
                trial. Where an organization manages GuardDuty, let its administrator do it.""",
            back="""Suture's undo suspends the detector again, or deletes the one that it made, with
                the findings that were in it.""",
        ),
    ),
)
