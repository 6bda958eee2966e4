"""Who may give a whole subscription away: its owners, and who hands out access everywhere."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import MissingData
from tasks.model import Predicate, Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import mapping, sequence, text

ASSIGNMENTS = "Microsoft.Authorization/roleAssignments"
KIND = "azure.authorization.subscription"
OWNER = "8e3af657-a8ff-443c-a75c-2fe8c4bcb635"
ACCESS_ADMINISTRATOR = "18d7d88d-d35e-4fb5-a5c3-7773c20a72d9"
FEWEST, MOST = 2, 3


def _holders(resource: Resource, role: str) -> Iterator[Mapping[str, Any]]:
    """The assignments of a role that hold for the whole subscription."""
    part = "roleAssignments"
    for one in sequence(resource.config[part], part):
        given = mapping(mapping(one, part).get("properties"), part)
        definition = text(given.get("roleDefinitionId"), f"{part}.roleDefinitionId")
        if definition.lower().rpartition("/")[2] == role:
            yield given


def has_few_owners(resource: Resource) -> bool:
    """Two or three, inherited ones too. A group hides how many it stands for."""
    types = {
        text(one.get("principalId"), "roleAssignments.principalId"): text(
            one.get("principalType"), "roleAssignments.principalType"
        )
        for one in _holders(resource, OWNER)
    }
    single = [id for id, kind in types.items() if "group" not in kind.lower()]
    if len(single) > MOST:
        return False
    if len(single) < len(types):
        raise MissingData("roleAssignments", "name a group as owner: who is in it is not seen")
    return FEWEST <= len(single) <= MOST


def root_is_left_alone(resource: Resource) -> bool:
    """Nobody hands out access over everything there is: that right is for emergencies."""
    where = "roleAssignments.scope"
    scopes = [text(one.get("scope"), where) for one in _holders(resource, ACCESS_ADMINISTRATOR)]
    return "/" not in scopes


def _row(
    name: str,
    severity: Severity,
    title: str,
    passes: Predicate,
    aka: tuple[str, ...],
    guide: str,
) -> Rule:
    return Rule(
        id=f"azure_authorization_subscription_{name}",
        kind=KIND,
        severity=severity,
        title=title,
        passes=passes,
        fix=None,
        reads=("Microsoft.Resources/subscriptions/read", f"{ASSIGNMENTS}/read"),
        writes=(),
        events=(f"{ASSIGNMENTS}/write", f"{ASSIGNMENTS}/delete"),
        aka=aka,
        guide=guide,
    )


_BY_HAND = """Suture's remediator must never be able to give or take roles: whoever can, can give
    themselves everything."""

RULES = (
    _row(
        "two_or_three_owners",
        Severity.MEDIUM,
        "Subscription has two or three owners",
        has_few_owners,
        ("cis-azure-5.0:5.27",),
        written(
            means="""Fewer than two or more than three users, applications or identities are Owner
                of the subscription, by an assignment on it or on a management group above it.
                Where a group is Owner, Suture cannot see how many that is, and says unknown unless
                there are more than three beside it.""",
            matters="""An owner can do everything and let in anybody: each is one more account to
                steal. With a single one, nobody can act when that one has left or is locked
                out.""",
            portal="""Subscriptions > the subscription > Access control (IAM) > Role assignments >
                Role: Owner. Give those who only deploy Contributor, or less, before you remove
                them.""",
            cli="""
                az role assignment list --role Owner --include-inherited \\
                  --scope /subscriptions/SUBSCRIPTION --output table
                az role assignment delete --role Owner --assignee PRINCIPAL \\
                  --scope /subscriptions/SUBSCRIPTION""",
            terraform="""
                resource "azurerm_role_assignment" "owner" {
                  for_each             = toset(var.owners) # two or three
                  scope                = data.azurerm_subscription.this.id
                  role_definition_name = "Owner"
                  principal_id         = each.value
                }""",
            by_hand=f"""{_BY_HAND} And who is to stay owner only you can say.""",
            breaks="""Pipelines and people that gave roles, or assigned policies, as owners. Look in
                the activity log what each of them has done before you remove one.""",
            back="Assign the role again; an owner that is left can do it.",
        ),
    ),
    _row(
        "root_access_admin_unused",
        Severity.CRITICAL,
        "Nobody may hand out access over the whole tenant",
        root_is_left_alone,
        ("prowler:iam_role_user_access_admin_restricted", "cis-azure-5.0:5.3.3"),
        written(
            means="""Somebody is User Access Administrator at the root scope: of every subscription
                and management group of the tenant, those to come included. A global administrator
                gets there with one switch, and stays there until it is set back.""",
            matters="""Whoever has that account has every subscription. The right is for getting a
                lost subscription back, for an hour.""",
            portal="""The one who has it: Microsoft Entra ID > Properties > Access management for
                Azure resources > No > Save. For others, Manage elevated access users on the same
                page.""",
            cli="""
                az role assignment list --role "User Access Administrator" --scope /
                az role assignment delete --role "User Access Administrator" \\
                  --assignee PRINCIPAL --scope /""",
            terraform="""
                # The switch is a person's own and no resource of Terraform. Assignments at "/" that
                # Terraform made are taken out of its configuration:
                # resource "azurerm_role_assignment" "root" { scope = "/" ... }""",
            by_hand=f"""{_BY_HAND} The assignment lies above every subscription, out of any gate's
                reach.""",
            breaks="""Whoever manages subscriptions by it: give them a role on the management groups
                or subscriptions that they need before.""",
            back="A global administrator sets the switch to Yes again.",
        ),
    ),
)
