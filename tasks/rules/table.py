"""The rule table as a table: what is wrong with its rows, and how the README prints it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from tasks.model import Cloud, Rule
from tasks.rules.benchmark import markdown_controls

_ID = re.compile(r"(aws|azure)(_[a-z0-9]+){3,}")
_KIND = re.compile(r"(aws|azure)\.[a-z0-9]+\.[a-z0-9_]+")
_AWS_NAME = re.compile(r"[a-z0-9-]+:[A-Z][A-Za-z0-9]+")
_AZURE_NAME = re.compile(r"Microsoft\.[A-Za-z]+(/[A-Za-z0-9]+)+/(read|write|delete|action)")
_AKA = re.compile(r"(prowler|securityhub|cloudsploit|cis-(aws|azure)-\d+\.\d+):[\w.]+")
_INPUT_KINDS = {"cidrs", "text", "number"}


def lint(rules: Sequence[Rule]) -> list[str]:
    """What is wrong with the table, one sentence each; empty for a good one."""
    twice = [rule_id for rule_id, count in Counter(one.id for one in rules).items() if count > 1]
    return [f"{rule_id}: is there more than once" for rule_id in twice] + [
        f"{one.id}: {problem}" for one in rules for problem in _problems(one)
    ]


def _problems(rule: Rule) -> Iterable[str]:
    if not _ID.fullmatch(rule.id):
        yield "the id is not {cloud}_{service}_{resource}_{good state}"
    if not _KIND.fullmatch(rule.kind):
        yield "the kind is not {cloud}.{service}.{resource}"
    elif not rule.id.startswith(f"{rule.cloud}_{rule.service}_"):
        yield "id and kind name different services"
    if (rule.fix is None) != (not rule.writes):
        yield "a fix needs writes, and writes need a fix"
    if rule.inputs and rule.fix is None:
        yield "inputs without a fix"
    if not rule.title or not rule.guide:
        yield "title and guide must say something"
    if not rule.reads or not rule.events:
        yield "no reads or no events are named"
    name = _AWS_NAME if rule.kind.startswith(Cloud.AWS) else _AZURE_NAME
    for named in (*rule.reads, *rule.writes, *rule.events):
        if not name.fullmatch(named):
            yield f"{named} is not a permission or event of its cloud"
    for other in rule.aka:
        if not _AKA.fullmatch(other):
            yield f"{other} is not a reference"
    for one in rule.inputs:
        if one.kind not in _INPUT_KINDS or not one.label:
            yield f"the input {one.name} has no known kind or no label"


def counts(rules: Sequence[Rule]) -> str:
    """How many rules there are, in a sentence for the README."""
    azure = sum(one.cloud is Cloud.AZURE for one in rules)
    fixing = sum(one.fix is not None for one in rules)
    proved = sum(one.proved for one in rules)
    unproved = len(rules) - proved
    return (
        f"{len(rules)} rules, {len(rules) - azure} on AWS and {azure} on Azure; {fixing} with a "
        f"fix and its undo, {len(rules) - fixing} guided only. {proved} are proved on the emulated "
        f"clouds, {unproved} are not.\n"
    )


def markdown_table(rules: Iterable[Rule]) -> str:
    """The table for the README: id, severity, title, fix and undo, inputs."""
    rows = [
        (f"`{one.id}`", one.severity.value, one.title, _remedy(one), _inputs(one)) for one in rules
    ]
    head = ("Rule", "Severity", "Says, when it passes", "Fix", "Values it takes")
    lines = [head, ("---",) * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines) + "\n"


def _remedy(rule: Rule) -> str:
    return "guided only" if rule.fix is None else "fix and undo"


def _inputs(rule: Rule) -> str:
    return ", ".join(f"`{one.name}`" for one in rule.inputs) or "none"


def readme_section(rules: Sequence[Rule]) -> str:
    """What the README says of the table, between its two marks."""
    return (
        f"\n{counts(rules)}\n<details><summary>All of them</summary>\n\n"
        f"{markdown_table(rules)}\n</details>\n\n{markdown_controls(rules)}\n"
    )
