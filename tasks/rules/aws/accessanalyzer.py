"""IAM Access Analyzer's rules: something looks for access from outside."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, sequence, text

_PART = "Analyzers"
_OUTSIDE = ("ACCOUNT", "ORGANIZATION")  # others look for access that is unused, or inside
_STATES = {"ACTIVE": True, "CREATING": True, "DISABLED": False, "FAILED": False}
_NAME = "suture-external-access"


def _analyzers(resource: Resource) -> Sequence[Mapping[str, Any]]:
    return [mapping(one, _PART) for one in sequence(resource.config[_PART], _PART)]


def _looks(analyzer: Mapping[str, Any]) -> bool:
    state = text(analyzer.get("status"), f"{_PART}.status")
    if state not in _STATES:
        raise odd(f"{_PART}.status")
    return text(analyzer.get("type"), f"{_PART}.type") in _OUTSIDE and _STATES[state]


def looks_for_outsiders(resource: Resource) -> bool:
    """An analyzer of external access is at work, the account's or the organization's."""
    return any(_looks(one) for one in _analyzers(resource))


def look_for_outsiders(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Makes the account's analyzer, under a name that is free; the undo deletes it."""
    if looks_for_outsiders(resource):
        return ()
    found = _analyzers(resource)
    if any(one["type"] == "ACCOUNT" for one in found):
        raise BadInput(
            _PART,
            "the account's analyzer is there and not at work, and a region has only one.",
            "See in the console why it is disabled; delete it and make a new one by hand.",
        )
    named = {"analyzerName": _free_name([one.get("name") for one in found])}
    return (
        Step(
            "access-analyzer:CreateAnalyzer",
            _call("CreateAnalyzer", {**named, "type": "ACCOUNT"}),
            (_call("DeleteAnalyzer", named),),
            (Change("analyzer of external access", "none", named["analyzerName"]),),
        ),
    )


def _free_name(taken: Sequence[Any]) -> str:
    name, number = _NAME, 2
    while name in taken:
        name, number = f"{_NAME}-{number}", number + 1
    return name


def _call(operation: str, params: Mapping[str, Any]) -> Call:
    return Call(Cloud.AWS, "accessanalyzer", operation, params)


RULES = (
    Rule(
        id="aws_accessanalyzer_analyzers_external_access_watched",
        kind="aws.accessanalyzer.analyzers",
        severity=Severity.LOW,
        title="An analyzer looks for access from outside in the region",
        passes=looks_for_outsiders,
        fix=look_for_outsiders,
        reads=("access-analyzer:ListAnalyzers",),
        writes=("access-analyzer:CreateAnalyzer", "access-analyzer:DeleteAnalyzer"),
        events=("access-analyzer:CreateAnalyzer", "access-analyzer:DeleteAnalyzer"),
        aka=("prowler:accessanalyzer_enabled", "cis-aws-6.0:2.19"),
        guide=written(
            means="""No analyzer of external access is active in this region: neither the account's
                own nor one of its organization.""",
            matters="""An analyzer reads the policies of buckets, roles, keys, queues and secrets,
                and names every one that lets somebody from outside in. It looks at its own region
                only.""",
            console="""IAM > Access analyzer > Analyzer settings, in the region > Create analyzer >
                Resource analysis, external access, current account.""",
            cli="""
                aws accessanalyzer create-analyzer --analyzer-name external-access \\
                    --type ACCOUNT --region REGION""",
            terraform="""
                resource "aws_accessanalyzer_analyzer" "this" {
                  analyzer_name = "external-access"
                  type          = "ACCOUNT"
                }""",
            fix=f"""It makes an analyzer of external access for the account, named {_NAME}. An
                account that has never had one needs the service-linked role first, which a
                remediator must not make: aws iam create-service-linked-role --aws-service-name
                access-analyzer.amazonaws.com""",
            breaks="Nothing. Analyzers of external access cost nothing.",
            back="""Suture's undo deletes the analyzer that it made, with its findings and archive
                rules.""",
        ),
    ),
)
