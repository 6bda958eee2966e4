"""Roles, scopes and their delays, without a server."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from deployments.local.azure.rbac import (
    CONTRIBUTOR,
    OWNER,
    READER,
    AccessBook,
    RoleAssignment,
    RoleDefinition,
    ancestors,
    covers,
)
from deployments.templates import remediator_permissions
from tasks.model import Cloud

RULE_WRITE = "Microsoft.Network/networkSecurityGroups/securityRules/write"
GROUP = "/subscriptions/s1/resourceGroups/rg"
NSG = f"{GROUP}/providers/Microsoft.Network/networkSecurityGroups/web"
REMEDIATOR = RoleDefinition("r", "Remediator", "", tuple(remediator_permissions(Cloud.AZURE)))

segment = st.text("abcABC019-_.", min_size=1, max_size=8)
scopes = st.lists(segment, min_size=1, max_size=8).map(lambda parts: "/" + "/".join(parts))


def book(*given: RoleAssignment) -> AccessBook:
    access = AccessBook()
    for assignment in given:
        access.assign(assignment)
    return access


@pytest.mark.parametrize(
    ("role", "operation", "allowed"),
    [
        (READER, "Microsoft.Network/networkSecurityGroups/read", True),
        (READER, "MICROSOFT.NETWORK/NETWORKSECURITYGROUPS/READ", True),
        (READER, RULE_WRITE, False),
        (READER, "Microsoft.Network/networkSecurityGroups/readAll", False),
        (CONTRIBUTOR, RULE_WRITE, True),
        (CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/read", True),
        (CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/write", False),
        (CONTRIBUTOR, "Microsoft.Authorization/roleAssignments/delete", False),
        (OWNER, "Microsoft.Authorization/roleAssignments/write", True),
        (REMEDIATOR, RULE_WRITE, True),
        (REMEDIATOR, "Microsoft.Network/networkSecurityGroups/write", False),
        (REMEDIATOR, "Microsoft.Storage/storageAccounts/delete", False),
        (REMEDIATOR, "Microsoft.Storage/storageAccounts/listKeys/action", False),
    ],
)
def test_a_role_allows_its_actions_but_not_its_not_actions(
    role: RoleDefinition, operation: str, allowed: bool
) -> None:
    assert role.allows(operation) is allowed


def test_a_dot_in_an_action_is_a_dot() -> None:
    role = RoleDefinition("r", "Dots", "", ("Microsoft.Network/x/read",))
    assert not role.allows("MicrosoftXNetwork/x/read")


def test_access_reaches_down_and_never_sideways_or_up() -> None:
    access = book(RoleAssignment("a", NSG, "alice", REMEDIATOR))

    def may(scope: str, who: str = "alice") -> bool:
        return access.allowed(who, RULE_WRITE, scope, now=0)

    assert may(NSG)
    assert may(f"{NSG}/securityRules/ssh")
    assert may(NSG.upper(), "ALICE")
    assert not may(f"{NSG}2")
    assert not may(f"{NSG}2/securityRules/ssh")
    assert not may(GROUP)
    assert not may("/")
    assert not may(NSG, "bob")


def test_the_root_covers_everything() -> None:
    access = book(RoleAssignment("a", "/", "alice", READER))
    assert access.allowed("alice", "x/y/read", NSG, now=0)


def test_an_assignment_starts_and_ends_with_its_delay() -> None:
    assignment = RoleAssignment("a", GROUP, "alice", REMEDIATOR, starts=100)
    access = book(assignment)
    assert not access.allowed("alice", RULE_WRITE, NSG, now=99)
    assert access.allowed("alice", RULE_WRITE, NSG, now=100)
    access.remove(assignment, ends=160)
    assert access.find(GROUP, "a") is None
    assert access.allowed("alice", RULE_WRITE, NSG, now=159)
    assert not access.allowed("alice", RULE_WRITE, NSG, now=160)


def test_touches_sees_roles_above_and_below_but_not_beside() -> None:
    access = book(RoleAssignment("a", NSG, "alice", REMEDIATOR))
    assert access.touches("alice", "/subscriptions/S1", now=0)
    assert access.touches("alice", f"{NSG}/securityRules/x", now=0)
    assert not access.touches("alice", "/subscriptions/s2", now=0)
    assert not access.touches("alice", "/subscriptions/s", now=0)


@given(scopes)
def test_every_ancestor_covers_its_scope_whatever_the_case(scope: str) -> None:
    above = list(ancestors(scope))
    assert above[-1] == "/"
    assert len(above) == len(set(above)) == scope.count("/") + 1
    assert all(covers(ancestor, scope.swapcase()) for ancestor in above)


@given(scopes, scopes)
def test_access_is_exactly_cover(given_scope: str, asked: str) -> None:
    assignment = RoleAssignment("a", given_scope, "alice", READER)
    access = book(assignment)
    assert access.allowed("alice", "x/read", asked, now=0) is covers(given_scope, asked)
    access.remove(assignment, ends=0)
    assert not access.allowed("alice", "x/read", asked, now=0)
