"""What a customer deploys: CloudFormation and ARM templates whose permissions come from the rules.

Beside this file lie the templates without their lists, ``aws.json`` and ``azure.json``: an entry
such as "<scanner>" stands for a list made here. deployments/aws and deployments/azure hold what
``template_text`` writes; a test fails when they differ.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from importlib.resources import files
from typing import Any

from tasks.clouds import aws_collect, azure_collect
from tasks.clouds.aws_gate import CLOSED
from tasks.clouds.azure_graph import GRAPH_READS
from tasks.errors import BadInput
from tasks.model import Cloud, Rule
from tasks.rules import RULES


def scanner_permissions(cloud: Cloud, rules: Iterable[Rule] = RULES) -> list[str]:
    """What the scanner may do: what the rules of the cloud read and, on Azure, what finds it.

    On Azure that is not Reader, which may read federated credentials: an open gate's code stands in
    one.
    """
    reads = [read for rule in rules if rule.cloud is cloud for read in rule.reads]
    if cloud is Cloud.AZURE:
        reads += [*azure_collect.DISCOVERY_READS, *GRAPH_READS]
    return _each_once(reads)


def remediator_permissions(cloud: Cloud, rules: Iterable[Rule] = RULES) -> list[str]:
    """The ceiling of all fixes: what the rules of the cloud write, undo included.

    On Azure a write first reads the ETag of what it writes and of the resource around it.
    """
    fixing = [rule for rule in rules if rule.cloud is cloud and rule.fix is not None]
    needed = [write for rule in fixing for write in rule.writes]
    if cloud is Cloud.AZURE:
        needed += [f"{write.rpartition('/')[0]}/read" for write in needed]
        needed += [read for rule in fixing for read in rule.reads]
    return _each_once(needed)


def template(cloud: Cloud, rules: Sequence[Rule] = RULES) -> dict[str, Any]:
    """The CloudFormation template (AWS) or the ARM template (Azure) for a rule table."""
    skeleton = json.loads(files(__package__).joinpath(f"{cloud}.json").read_text("utf-8"))
    lists: dict[str, list[Any]] = {
        "<scanner>": scanner_permissions(cloud, rules),
        "<remediator>": remediator_permissions(cloud, rules),
        "<discovery>": list(aws_collect.DISCOVERY_READS),
        "<closed>": [CLOSED],
    }
    filled: dict[str, Any] = _filled(skeleton, lists)
    return filled


def template_text(cloud: Cloud, rules: Sequence[Rule] = RULES) -> str:
    """The template as it is committed, deployed and printed by `suture gate template`.

    Raises BadInput where none of the rules is of that cloud and has a fix: neither cloud has a role
    that may do nothing.
    """
    if not any(rule.cloud is cloud and rule.fix is not None for rule in rules):
        raise BadInput(
            "rule",
            f"none of these rules is of {cloud} and has a fix, so there is no role to make.",
            f"List those that have one with: suture rules --cloud {cloud} --fix",
        )
    return json.dumps(template(cloud, rules), indent=2) + "\n"


def _filled(part: Any, lists: Mapping[str, list[Any]]) -> Any:
    if isinstance(part, dict):
        return {key: _filled(value, lists) for key, value in part.items()}
    if isinstance(part, list):
        return [
            one
            for entry in part
            for one in (
                lists[entry]
                if isinstance(entry, str) and entry in lists
                else [_filled(entry, lists)]
            )
        ]
    return part


def _each_once(permissions: Iterable[str]) -> list[str]:
    """In order of the alphabet. Clouds compare permissions without regard to case."""
    found = {name.lower(): name for name in permissions}
    return [found[key] for key in sorted(found)]
