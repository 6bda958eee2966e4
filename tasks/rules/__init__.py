"""The rule table: every rule of both clouds, as values. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase

from tasks.errors import BadInput
from tasks.model import Rule
from tasks.rules.aws import ec2, iam, kms, s3
from tasks.rules.azure import network, storage

RULES: tuple[Rule, ...] = (
    *ec2.RULES,
    *s3.RULES,
    *iam.RULES,
    *kms.RULES,
    *network.RULES,
    *storage.RULES,
)

_BY_ID = {one.id: one for one in RULES}


def rule(rule_id: str) -> Rule:
    """The rule of that id; BadInput when there is none."""
    try:
        return _BY_ID[rule_id]
    except KeyError:
        raise BadInput(
            "rule", "is not in the rule table.", "List them with: suture rules"
        ) from None


def rules_of(kinds: Sequence[str]) -> tuple[Rule, ...]:
    """The rules about kinds that match one of the patterns ("aws.s3.*"); none: the whole table.

    Raises BadInput for a pattern that no kind matches.
    """
    known = {one.kind for one in RULES}
    for pattern in kinds:
        if not any(fnmatchcase(kind, pattern) for kind in known):
            raise BadInput(
                "SUTURE_KINDS",
                f"{pattern} matches no kind of resource.",
                f"There are {', '.join(sorted(known))}.",
            )
    return tuple(
        one for one in RULES if not kinds or any(fnmatchcase(one.kind, kind) for kind in kinds)
    )
