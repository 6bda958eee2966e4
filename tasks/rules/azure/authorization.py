"""Azure's roles: no custom one that gives away all of a subscription."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.azure.setting import PROPERTIES, value_at
from tasks.rules.guide import written
from tasks.rules.shape import mapping, sequence, text

ROLE = "Microsoft.Authorization/roleDefinitions"
_GIVES_ROLES = "microsoft.authorization/roleassignments/write"
_WIDE = re.compile(
    r"/|/subscriptions/[^/]+|/providers/microsoft\.management/managementgroups/[^/]+", re.IGNORECASE
)


def is_no_owner(resource: Resource) -> bool:
    """Everything is allowed, the giving of roles too, on a subscription or above: that is Owner."""
    where = "properties.permissions"
    permissions = [
        mapping(one, where)
        for one in sequence(value_at(resource, PROPERTIES, "permissions"), where)
    ]
    scopes = _texts(value_at(resource, PROPERTIES, "assignableScopes"), "assignableScopes")
    kind = text(value_at(resource, PROPERTIES, "type"), "properties.type")
    owns = any(_owns(one) for one in permissions)
    return kind == "BuiltInRole" or not owns or not any(_WIDE.fullmatch(one) for one in scopes)


def _owns(permission: Mapping[str, Any]) -> bool:
    allowed = _texts(permission.get("actions") or (), "permissions.actions")
    refused = _texts(permission.get("notActions") or (), "permissions.notActions")
    return "*" in allowed and not any(_names_giving_roles(one) for one in refused)


def _names_giving_roles(pattern: str) -> bool:
    expression = re.escape(pattern.lower()).replace(r"\*", ".*")
    return re.fullmatch(expression, _GIVES_ROLES) is not None


def _texts(value: Any, part: str) -> list[str]:
    where = f"properties.{part}"
    return [text(one, where) for one in sequence(value, where)]


RULES = (
    Rule(
        id="azure_authorization_role_definition_no_custom_owner",
        kind="azure.authorization.role_definition",
        severity=Severity.HIGH,
        title="Custom role does not give all that Owner gives",
        passes=is_no_owner,
        fix=None,
        reads=(f"{ROLE}/read",),
        writes=(),
        events=(f"{ROLE}/write", f"{ROLE}/delete"),
        aka=("prowler:iam_subscription_roles_owner_custom_not_created", "cis-azure-5.0:5.23"),
        guide=written(
            means="""A role that somebody has made allows every action, the giving of roles too,
                and can be given on a whole subscription or above it: an Owner by another name.""",
            matters="""Reviews look for owners. Whoever has such a role is one, and is found by
                nobody who looks for the name.""",
            portal="Subscriptions > the subscription > Access control (IAM) > Roles > CustomRole.",
            cli="""
                az role assignment list --role ROLE --all -o table
                az role definition delete --name ROLE""",
            terraform="""
                resource "azurerm_role_definition" "deployer" {
                  name  = "deployer"
                  scope = data.azurerm_subscription.this.id
                  permissions {
                    actions     = ["Microsoft.Web/sites/*"]
                    not_actions = []
                  }
                }""",
            by_hand="""Whoever has the role loses every right when it is made smaller, pipelines and
                break-glass accounts among them, and nothing says what they really need. See in the
                activity log what they did, write a role for that, give it to them, and then delete
                this one.""",
            breaks="Everything that signs in with this role and needs more than it keeps.",
            back="""Make the role again with the definition that you have kept. Its id is another
                one, so that its assignments must be made again, too.""",
        ),
    ),
)
