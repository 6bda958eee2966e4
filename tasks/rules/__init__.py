"""The rule table: every rule of both clouds, as values. Pure."""

from __future__ import annotations

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
