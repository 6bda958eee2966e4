"""Azure Storage's rules: HTTPS only, no anonymous blobs, TLS 1.2 and up."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from tasks.model import (
    Call,
    Change,
    Cloud,
    Config,
    Fix,
    Predicate,
    Resource,
    Rule,
    Severity,
    Step,
    as_it_was,
)
from tasks.rules.guide import guide
from tasks.rules.shape import flag, mapping, odd, text

API_VERSION = "2023-05-01"
WRITE = "Microsoft.Storage/storageAccounts/write"

_NEW_TLS = {"TLS1_2", "TLS1_3"}
_OLD_TLS = {"TLS1_0", "TLS1_1"}


def _properties(resource: Resource) -> Mapping[str, Any]:
    return mapping(resource.config["properties"], "properties")


def https_only(resource: Resource) -> bool:
    """Absent is unknown: the default was false before API version 2019-04-01 and true since."""
    name = "supportsHttpsTrafficOnly"
    return flag(_properties(resource).get(name), f"properties.{name}")


def blobs_are_private(resource: Resource) -> bool:
    """Absent fails: an account that never had this set is one from before Azure turned the default
    round (2023), and such an account lets its containers be made public."""
    name = "allowBlobPublicAccess"
    allowed = _properties(resource).get(name)
    return allowed is not None and not flag(allowed, f"properties.{name}")


def asks_for_new_tls(resource: Resource) -> bool:
    """Absent fails: the documented default is TLS 1.0."""
    name = "minimumTlsVersion"
    version = _properties(resource).get(name)
    if version is None or text(version, f"properties.{name}") in _OLD_TLS:
        return False
    if version not in _NEW_TLS:
        raise odd(f"properties.{name}")
    return True


def set_property(
    name: str, value: Any, meaning: str, passes: Predicate, *, unset: Any = None
) -> Fix:
    """A planner that sets one property of the account; the undo sets the old value.

    ``unset`` is what an account means that never had the property. The undo says that outright: the
    API documents nothing that takes a property away, and its SDKs leave null out.
    """

    def fix(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
        if passes(resource):
            return ()
        old = _properties(resource).get(name)
        before = _word(old)
        if old is None:
            before, old = f"not set (an undo can only set {_word(unset)}, which means that)", unset
        return (
            Step(
                WRITE,
                _patch(resource, name, value),
                (_patch(resource, name, old),),
                (Change(f"properties.{name}", before, f"{_word(value)}: {meaning}"),),
            ),
        )

    return fix


def never_set_becomes(name: str, unset: Any) -> Callable[[Resource], Resource]:
    """What the undo leaves of an account that never had the property: it has it outright."""

    def undone(before: Resource) -> Resource:
        properties = _properties(before)
        if properties.get(name) is not None:
            return before
        parts = {**before.config.as_dict(), "properties": {**properties, name: unset}}
        return replace(before, config=Config(parts, before.config.gaps))

    return undone


def _word(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _patch(resource: Resource, name: str, value: Any) -> Call:
    return Call(Cloud.AZURE, API_VERSION, "PATCH", {"properties": {name: value}}, resource.id)


def _row(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    setting: tuple[str, Any, str],
    aka: tuple[str, ...],
    unset: Any = None,
) -> Rule:
    """The row of one property; ``setting`` is its name, its good value and what that means.

    ``unset`` is what an account means that never had it, where the rule fails on such.
    """
    rule_id = f"azure_storage_account_{name}"
    return Rule(
        id=rule_id,
        kind="azure.storage.account",
        severity=severity,
        title=title,
        passes=passes,
        fix=set_property(*setting, passes, unset=unset),
        reads=("Microsoft.Storage/storageAccounts/read",),
        writes=(WRITE,),
        events=(WRITE,),
        aka=aka,
        undone=as_it_was if unset is None else never_set_becomes(setting[0], unset),
        guide=guide(rule_id),
    )


RULES = (
    _row(
        "https_only",
        Severity.HIGH,
        "Storage account takes HTTPS only",
        https_only,
        ("supportsHttpsTrafficOnly", True, "requests over plain HTTP are refused"),
        aka=(
            "prowler:storage_secure_transfer_required_is_enabled",
            "cis-azure-5.0:9.3.4",
            "cloudsploit:storageAccountsHttps",
        ),
    ),
    _row(
        "public_blob_access_off",
        Severity.HIGH,
        "Storage account lets nobody read blobs anonymously",
        blobs_are_private,
        ("allowBlobPublicAccess", False, "no container can be read without credentials"),
        aka=("prowler:storage_blob_public_access_level_is_disabled", "cis-azure-5.0:9.3.8"),
        unset=True,
    ),
    _row(
        "minimum_tls",
        Severity.MEDIUM,
        "Storage account asks for TLS 1.2 or newer",
        asks_for_new_tls,
        ("minimumTlsVersion", "TLS1_2", "clients that speak only TLS 1.0 or 1.1 are refused"),
        aka=(
            "prowler:storage_ensure_minimum_tls_version_12",
            "cis-azure-5.0:9.3.6",
            "cloudsploit:storageAccountsTlsVersion",
        ),
        unset="TLS1_0",
    ),
)
