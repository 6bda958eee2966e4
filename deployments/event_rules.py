"""What lets events reach Suture: templates for AWS and Azure, filled by the rule table's events.

Their fixed parts lie in deployments/templates. deployments/aws and deployments/azure hold what
``event_template_text`` writes; a test fails when they differ.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from itertools import groupby
from typing import Any

from deployments import templates
from deployments.event_parts import Part
from tasks.clouds.events import watched_operations
from tasks.errors import BadInput
from tasks.model import Cloud, Rule
from tasks.rules import RULES

# "Amazon EventBridge quotas" and "Understand event filtering for Event Grid subscriptions".
MOST_PATTERN_CHARACTERS = 2_048  # of one rule's event pattern
MOST_FILTER_VALUES = 25  # of one event subscription, over all its filters

API_CALL = "AWS API Call via CloudTrail"
# What an Azure operation ends with, and the type of the event that tells of its success.
EVENT_TYPES = {
    "write": "Microsoft.Resources.ResourceWriteSuccess",
    "delete": "Microsoft.Resources.ResourceDeleteSuccess",
    "action": "Microsoft.Resources.ResourceActionSuccess",
}


# The parts of each cloud, and the file that each is committed as. The one with the events first.
PARTS: Mapping[Cloud, Mapping[Part, str]] = {
    Cloud.AWS: {Part.MEMBER: "events-member.json", Part.HUB: "events-hub.json"},
    Cloud.AZURE: {Part.SUBSCRIPTION: "events.json", Part.QUEUE: "events-queue.json"},
}


def event_template_text(
    cloud: Cloud, part: Part | None = None, rules: Sequence[Rule] = RULES
) -> str:
    """The template as it is committed, deployed and printed by `suture react template`.

    Without ``part`` it is the one that the rules fill: member, or subscription.
    Raises BadInput where the part is the other cloud's, or none of the rules is of this cloud.
    """
    return json.dumps(event_template(cloud, part, rules), indent=2) + "\n"


def event_template(
    cloud: Cloud, part: Part | None = None, rules: Sequence[Rule] = RULES
) -> dict[str, Any]:
    """The document itself. Raises as ``event_template_text`` does."""
    parts = PARTS[cloud]
    part = next(iter(parts)) if part is None else part
    if part not in parts:
        raise BadInput("--part", f"{part} is no part of {cloud}.", f"Name {' or '.join(parts)}.")
    fixed = templates.__name__
    skeleton: dict[str, Any] = json.loads(
        files(fixed).joinpath(f"events_{part}.json").read_text("utf-8")
    )
    if part not in (Part.MEMBER, Part.SUBSCRIPTION):
        return skeleton
    operations = watched_operations(cloud, rules)
    if not operations:
        raise BadInput(
            "rule",
            f"none of these rules is of {cloud} and has events, so there is nothing to send.",
            f"List them with: suture rules --cloud {cloud}",
        )
    if part is Part.MEMBER:
        skeleton["Resources"] |= _event_rules(operations)
    else:
        skeleton["variables"] = {
            "eventTypes": _event_types(operations),
            "operations": filter_values(operations),
        }
    return skeleton


def event_patterns(operations: Sequence[str]) -> dict[str, list[dict[str, Any]]]:
    """The event patterns of each service ("ec2"), as many as its names need: each fits a rule."""
    return {
        service: [_event_pattern(service, names) for names in _fitting(service, list(those))]
        for service, those in groupby(sorted(operations), key=lambda one: one.partition(":")[0])
    }


def filter_values(operations: Sequence[str]) -> list[list[str]]:
    """The operations in as few lists as one filter each takes, a provider's in one if it can be.

    Few, because Event Grid charges for each filter that an event is held against.
    """
    lists: list[list[str]] = []
    for _, those in groupby(
        sorted(operations, key=str.lower), key=lambda one: one.partition("/")[0].lower()
    ):
        mine = list(those)
        for start in range(0, len(mine), MOST_FILTER_VALUES):
            some = mine[start : start + MOST_FILTER_VALUES]
            room = [one for one in lists if len(one) + len(some) <= MOST_FILTER_VALUES]
            if room:
                room[0].extend(some)
            else:
                lists.append(some)
    return lists


def _event_rules(operations: Sequence[str]) -> dict[str, Any]:
    """EventBridge rules by logical ids: "Ec2Events", and "Ec2Events2" for what does not fit."""
    return {
        f"{''.join(word.capitalize() for word in service.split('-'))}Events{number or ''}": {
            "Type": "AWS::Events::Rule",
            "Properties": {
                "Description": f"Changes by {service} that Suture's rules are about.",
                "EventPattern": pattern,
                "State": "ENABLED",
                "Targets": [
                    {
                        "Id": "suture",
                        "Arn": {"Ref": "HubBusArn"},
                        "RoleArn": {"Fn::GetAtt": ["Sender", "Arn"]},
                    }
                ],
            },
        }
        for service, patterns in event_patterns(operations).items()
        for number, pattern in zip((0, *range(2, len(patterns) + 1)), patterns, strict=True)
    }


def _event_pattern(service: str, names: Sequence[str]) -> dict[str, Any]:
    """Calls that succeeded. The source is what nobody but AWS can send."""
    return {
        "source": [f"aws.{service}"],
        "detail-type": [API_CALL],
        "detail": {
            "eventSource": [f"{service}.amazonaws.com"],
            "eventName": list(names),
            "errorCode": [{"exists": False}],
        },
    }


def _fitting(service: str, operations: Sequence[str]) -> list[list[str]]:
    """The names of a service's calls, in lists whose patterns are no longer than a rule takes."""
    lists: list[list[str]] = [[]]
    for operation in operations:
        name = operation.partition(":")[2]
        longer = [*lists[-1], name]
        if len(json.dumps(_event_pattern(service, longer))) > MOST_PATTERN_CHARACTERS:
            lists.append([name])
        else:
            lists[-1] = longer
    return lists


def _event_types(operations: Sequence[str]) -> list[str]:
    """The types of the events that tell of these operations.

    Raises KeyError for one that ends in another word: Event Grid tells nothing of it.
    """
    ends = {one.rpartition("/")[2].lower() for one in operations}
    return sorted(EVENT_TYPES[end] for end in ends)
