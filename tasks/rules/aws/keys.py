"""Fixes that encrypt with a KMS key: one call with a key that an approver may name."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from tasks.errors import BadAnswer
from tasks.model import Change, Fix, Input, Predicate, Resource, Step
from tasks.rules.aws.switch import Params, switch

_KEY = re.compile(
    r"alias/[\w/-]+|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}|mrk-[0-9a-f]{32}"
    r"|arn:[\w-]+:kms:[\w-]+:\d{12}:(key|alias)/[\w/-]+",
    re.ASCII,
)


def key_input(default: str = "", *, required: bool = False, empty: str = "") -> Input:
    """The question for a KMS key; ``empty`` says what an empty answer means, if it may be."""
    label = "KMS key (id, ARN or alias" + (f"; empty: {empty})" if empty else ")")
    return Input(name="kms_key", kind="text", label=label, required=required, default=default)


def wanted_key(values: Mapping[str, Any], asked: Input) -> str:
    """The key that an approver named, or the default. Raises BadInput for what names no key."""
    wanted = values.get(asked.name) or asked.default
    if wanted == "" and not asked.required:
        return ""
    if not isinstance(wanted, str) or not _KEY.fullmatch(wanted):
        raise BadAnswer(
            asked.name, "does not name a KMS key.", "Give a key's id or ARN, or alias/NAME."
        )
    return wanted


def encrypt(
    action: str,
    service: str,
    operation: str,
    *,
    key: Input,
    passes: Predicate,
    names: Params,
    good: Callable[[Resource, str], Mapping[str, Any]],
    old: Callable[[Resource, str], Mapping[str, Any]],
    changes: Callable[[Resource, str], tuple[Change, ...]],
    back: str = "",
) -> Fix:
    """``switch`` with a key: ``good``, ``old`` and ``changes`` are made with the one named."""

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        wanted = wanted_key(values, key)
        planner = switch(
            action,
            service,
            operation,
            passes=passes,
            names=names,
            good=lambda one: good(one, wanted),
            old=lambda one: old(one, wanted),
            changes=lambda one: changes(one, wanted),
            back=back,
        )
        return planner(resource, values)

    return fix
