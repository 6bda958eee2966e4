"""What a scan of each kind costs: the calls that it makes, as the kinds themselves say. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tasks.clouds import azure_collect
from tasks.clouds.aws_kinds import COLLECTORS as AWS_KINDS
from tasks.clouds.iam_actions import iam_action
from tasks.model import Cloud, Rule


@dataclass(frozen=True, slots=True)
class Cost:
    """One kind's calls, for the rules that judge it.

    ``once`` are made for each ``place`` ("region", "account" or "subscription"), ``each`` for every
    resource found, ``deeper`` for every thing that one of those lists. AWS's calls are named as in
    "rds:DescribeDBInstances", ARM's by the operation that they need. Not counted: retries, pages
    after the first, signing in, and what the identity may do on a whole subscription.
    """

    kind: str
    cloud: Cloud
    place: str
    rules: int
    once: tuple[str, ...]
    each: tuple[str, ...]
    deeper: tuple[str, ...] = ()


def costs(rules: Sequence[Rule]) -> tuple[Cost, ...]:
    """Each kind that the rules judge, in their order; parts that none of them needs cost nothing.

    An Azure kind that Resource Graph answers costs less than this where many subscriptions are
    scanned: they share one query.
    """
    kinds = dict.fromkeys(one.kind for one in rules)
    needed = frozenset(read for one in rules for read in one.reads)
    return tuple(_cost(kind, sum(one.kind == kind for one in rules), needed) for kind in kinds)


def _cost(kind: str, rules: int, needed: frozenset[str]) -> Cost:
    if kind.startswith(f"{Cloud.AWS}."):
        aws = AWS_KINDS[kind]

        def wanted(calls: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(one for one in calls if iam_action(*one.split(":")) in needed)

        place = "region" if aws.regional else "account"
        return Cost(
            kind,
            Cloud.AWS,
            place,
            rules,
            wanted(aws.once),
            wanted(aws.each),
            wanted(aws.deeper),
        )
    azure = azure_collect.COLLECTORS[kind].narrowed(needed)
    parts = tuple(part.read(azure.type) for part in azure.parts)
    deeper = tuple(part.read(azure.type) for part in azure.parts if part.each)
    if azure.itself:
        return Cost(kind, Cloud.AZURE, "subscription", rules, (azure.read, *parts), (), deeper)
    return Cost(kind, Cloud.AZURE, "subscription", rules, (azure.read,), parts, deeper)


def markdown_costs(rules: Sequence[Rule]) -> str:
    """The costs for the README, a line for each kind."""
    head: tuple[object, ...] = (
        "Kind",
        "Rules",
        "Calls",
        "for each",
        "Calls for each resource",
        "and for each part",
    )
    lines: list[tuple[object, ...]] = [head, ("---", "--:", "--:", "---", "--:", "--:")]
    for one in costs(rules):
        own = (len(one.each), len(one.deeper))
        lines.append((f"`{one.kind}`", one.rules, len(one.once), one.place, *own))
    return "\n".join("| " + " | ".join(map(str, line)) + " |" for line in lines) + "\n"
