"""AWS Config's rules: every region's resources are recorded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, sequence, text


def _recorders(resource: Resource) -> Sequence[Mapping[str, Any]]:
    """The customer's own; those that a service keeps for itself record for that service only."""
    found = [
        mapping(one, "Recorders") for one in sequence(resource.config["Recorders"], "Recorders")
    ]
    return [one for one in found if not one.get("servicePrincipal")]


def _at_work(resource: Resource) -> Mapping[str, bool]:
    found = [mapping(one, "Status") for one in sequence(resource.config["Status"], "Status")]
    return {
        text(one.get("name"), "Status.name"): flag(one.get("recording"), "Status.recording")
        for one in found
    }


def _takes_everything(recorder: Mapping[str, Any]) -> bool:
    group = mapping(recorder.get("recordingGroup"), "Recorders.recordingGroup")
    return flag(group.get("allSupported"), "Recorders.recordingGroup.allSupported")


def records_everything(resource: Resource) -> bool:
    """A recorder of all supported types of resource is at work."""
    recorders, at_work = _recorders(resource), _at_work(resource)
    return any(
        _takes_everything(one) and at_work.get(text(one.get("name"), "Recorders.name"), False)
        for one in recorders
    )


def record_everything(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Starts a recorder of everything that is stopped.

    Making one, or widening one, takes a role, a bucket and money: that is its owner's to decide.
    """
    if records_everything(resource):
        return ()
    stopped = [one for one in _recorders(resource) if _takes_everything(one)]
    if not stopped:
        raise BadInput(
            "Recorders",
            "there is no recorder of all types of resource that could be started.",
            "Make one, or widen the one that is there, by the guide of this rule.",
        )
    named = {"ConfigurationRecorderName": text(stopped[0].get("name"), "Recorders.name")}
    return (
        Step(
            "config:StartConfigurationRecorder",
            Call(Cloud.AWS, "config", "StartConfigurationRecorder", named),
            (Call(Cloud.AWS, "config", "StopConfigurationRecorder", named),),
            (
                Change(
                    f"recorder {named['ConfigurationRecorderName']}",
                    "stopped",
                    "records every change of every supported resource",
                ),
            ),
        ),
    )


RULES = (
    Rule(
        id="aws_config_recorder_everything_recorded",
        kind="aws.config.recorder",
        severity=Severity.MEDIUM,
        title="AWS Config records every resource of the region",
        passes=records_everything,
        fix=record_everything,
        reads=(
            "config:DescribeConfigurationRecorders",
            "config:DescribeConfigurationRecorderStatus",
        ),
        writes=("config:StartConfigurationRecorder", "config:StopConfigurationRecorder"),
        events=(
            "config:PutConfigurationRecorder",
            "config:StartConfigurationRecorder",
            "config:StopConfigurationRecorder",
            "config:DeleteConfigurationRecorder",
        ),
        aka=("prowler:config_recorder_all_regions_enabled", "cis-aws-6.0:4.3"),
        guide=written(
            means="""The region has no recorder of AWS Config that is at work and takes in all
                supported types of resource.""",
            matters="""The recorder keeps what every resource looked like and when it changed. That
                answers what an intruder changed, and Security Hub's checks are made on it.""",
            console="""AWS Config, in the region > Settings > Edit > Record all resource types, then
                Start recording.""",
            cli="""
                aws configservice put-configuration-recorder \\
                    --configuration-recorder name=default,roleARN=ROLE \\
                    --recording-group allSupported=true
                aws configservice put-delivery-channel \\
                    --delivery-channel name=default,s3BucketName=BUCKET
                aws configservice start-configuration-recorder \\
                    --configuration-recorder-name default""",
            terraform="""
                resource "aws_config_configuration_recorder" "this" {
                  role_arn = aws_iam_role.config.arn
                  recording_group {
                    all_supported = true
                  }
                }
                resource "aws_config_configuration_recorder_status" "this" {
                  name       = aws_config_configuration_recorder.this.name
                  is_enabled = true
                }""",
            fix="""It starts a recorder of everything that is stopped. Where there is none, or
                one of some types only, it refuses: role, bucket and cost are the owner's own
                choice.""",
            breaks="""Nothing stops working. AWS Config charges for every recorded change; accounts
                whose resources come and go all day may find that dear.""",
            back="Suture's undo stops the recorder again. What was recorded stays.",
        ),
    ),
)
