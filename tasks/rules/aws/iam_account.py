"""IAM's rules about the account: its root user, its support role, its policies and certificates."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Resource, Rule, Severity
from tasks.rules.guide import written
from tasks.rules.shape import flag, mapping, number, odd, sequence, text

# --- the root user ----------------------------------------------------------------------------


def _root(resource: Resource, name: str) -> bool:
    """Whether there is one, by GetAccountSummary's count."""
    count = number(mapping(resource.config["Root"], "Root").get(name), f"Root.{name}")
    if count < 0:
        raise odd(f"Root.{name}")
    return count > 0


def has_no_root_key(resource: Resource) -> bool:
    return not _root(resource, "AccountAccessKeysPresent")


def root_has_a_second_factor(resource: Resource) -> bool:
    """Or nothing to sign in with: an organization may take a member's root credentials away."""
    protected = _root(resource, "AccountMFAEnabled")
    if protected or "AccountPasswordPresent" not in resource.config["Root"]:
        return protected
    return not _root(resource, "AccountPasswordPresent") and has_no_root_key(resource)


def has_a_support_role(resource: Resource) -> bool:
    roles = sequence(resource.config["SupportRoles"], "SupportRoles")
    return bool([text(one, "SupportRoles") for one in roles])


# --- policies ---------------------------------------------------------------------------------


def is_not_administrative(resource: Resource) -> bool:
    """No statement of the policy allows every action on every resource."""
    document = mapping(resource.config["Document"], "Document")
    statements = [mapping(one, "Document") for one in _several(document.get("Statement"))]
    return not any(_allows_everything(one) for one in statements)


def _allows_everything(statement: Mapping[str, Any]) -> bool:
    """A condition makes no difference: whoever meets it may do everything."""
    if statement.get("Effect") not in ("Allow", "Deny"):
        raise odd("Document.Effect")
    actions = _patterns(statement, "Action")
    resources = _patterns(statement, "Resource")
    return (
        statement["Effect"] == "Allow"
        and any(one.replace(":", "").strip("*") == "" for one in actions)
        and any(one.strip("*") == "" for one in resources)
    )


def _patterns(statement: Mapping[str, Any], name: str) -> list[str]:
    """Action, Resource; none where the statement says NotAction or NotResource instead."""
    if name not in statement and f"Not{name}" in statement:
        return []
    return [text(one, f"Document.{name}") for one in _several(statement.get(name))]


def _several(value: Any) -> list[Any]:
    """IAM takes one thing where a list of them is meant."""
    if value is None or value == "" or value == []:
        raise odd("Document")
    return list(value) if isinstance(value, list) else [value]


# --- server certificates ----------------------------------------------------------------------


def has_not_expired(resource: Resource) -> bool:
    return not flag(resource.config["Expired"], "Expired")


# --- the rows ---------------------------------------------------------------------------------


RULES = (
    Rule(
        id="aws_iam_account_no_root_key",
        kind="aws.iam.account",
        severity=Severity.CRITICAL,
        title="Root user has no access key",
        passes=has_no_root_key,
        fix=None,
        reads=("iam:GetAccountSummary",),
        writes=(),
        events=("iam:CreateAccessKey", "iam:DeleteAccessKey"),
        aka=("prowler:iam_no_root_access_key", "securityhub:IAM.4", "cis-aws-6.0:2.3"),
        guide=written(
            means="The account's root user has an access key.",
            matters="""No policy of the account holds the root user back, so that neither does one
                hold back whoever has its key: it closes the account, takes every other user out,
                and reads everything. Nothing that runs day by day needs it.""",
            console="""Sign in as root > the account's menu > Security credentials > Access keys:
                look at Last used, then Actions > Deactivate, and after some days Delete.""",
            cli="""
                # With the root user's own key, which goes by this; first deactivate it:
                aws iam list-access-keys
                aws iam update-access-key --access-key-id KEY --status Inactive
                aws iam delete-access-key --access-key-id KEY
                # An organization with central root access does it from its own account:
                POLICY=arn:aws:iam::aws:policy/root-task/IAMDeleteRootUserCredentials
                aws sts assume-root --target-principal ACCOUNT --task-policy-arn arn=POLICY""",
            terraform="""
                resource "aws_iam_organizations_features" "this" {
                  enabled_features = ["RootCredentialsManagement"]
                }""",
            by_hand="""Only the root user itself, or an organization's account with central root
                access, can touch the key. No role that could be given to Suture may.""",
            breaks="""Whatever uses the key is refused. Give it a role with just what it does; some
                very old scripts have to be changed for that.""",
            back="""A key that was deactivated can be made active again by root. One that was
                deleted is gone.""",
        ),
    ),
    Rule(
        id="aws_iam_account_root_mfa",
        kind="aws.iam.account",
        severity=Severity.CRITICAL,
        title="Root user has a second factor, or nothing to sign in with",
        passes=root_has_a_second_factor,
        fix=None,
        reads=("iam:GetAccountSummary",),
        writes=(),
        events=("iam:EnableMFADevice", "iam:DeactivateMFADevice"),
        aka=("prowler:iam_root_mfa_enabled", "securityhub:IAM.9", "cis-aws-6.0:2.4"),
        guide=written(
            means="Root's password alone opens the account.",
            matters="""Root may do everything, and whoever reads its mailbox can set its password
                anew. A second factor is all that stands in between.""",
            console="""Sign in as root > the account's menu > Security credentials > Multi-factor
                authentication > Assign MFA device. Best are two security keys, in two places.""",
            cli="""
                aws iam get-account-summary \\
                  --query "SummaryMap.[AccountMFAEnabled,AccountPasswordPresent]"
                # Members of an organization may have no root password at all:
                aws iam enable-organizations-root-credentials-management""",
            terraform="""
                resource "aws_iam_organizations_features" "this" {
                  enabled_features = ["RootCredentialsManagement", "RootSessions"]
                }""",
            by_hand="Only the root user, with the device in hand, can enroll it.",
            breaks="""Nothing. Keep the devices where more than one person can get at them: without
                them AWS Support has to be convinced of who you are.""",
            back="Root can take the device off again, under Security credentials.",
        ),
    ),
    Rule(
        id="aws_iam_account_support_role",
        kind="aws.iam.account",
        severity=Severity.LOW,
        title="A role may open cases with AWS Support",
        passes=has_a_support_role,
        fix=None,
        reads=("iam:ListEntitiesForPolicy",),
        writes=(),
        events=("iam:AttachRolePolicy", "iam:DetachRolePolicy"),
        aka=("prowler:iam_support_role_created", "securityhub:IAM.18", "cis-aws-6.0:2.16"),
        guide=written(
            means="No role of the account has the policy AWSSupportAccess.",
            matters="""When something is on fire, those on duty must be able to call AWS without
                being administrators, and without the root user's password being handed around.""",
            console="""IAM > Roles > Create role > Trusted entity: who shall take it > Permissions:
                AWSSupportAccess > Create.""",
            cli="""
                aws iam create-role --role-name support \\
                  --assume-role-policy-document file://who-may.json
                aws iam attach-role-policy --role-name support \\
                  --policy-arn arn:aws:iam::aws:policy/AWSSupportAccess""",
            terraform="""
                resource "aws_iam_role_policy_attachment" "support" {
                  role       = aws_iam_role.support.name
                  policy_arn = "arn:aws:iam::aws:policy/AWSSupportAccess"
                }""",
            by_hand="""Who may take the role is for you to say: a role that Suture made would trust
                nobody, and would be of no use, or somebody, and be a way in.""",
            breaks="""Nothing. Whoever has the role sees the account's cases, and what was written
                in them.""",
            back="Detach the policy, and delete the role.",
        ),
    ),
    Rule(
        id="aws_iam_policy_not_administrative",
        kind="aws.iam.policy",
        severity=Severity.HIGH,
        title="Customer-managed policy in use does not allow everything",
        passes=is_not_administrative,
        fix=None,
        reads=("iam:ListPolicies", "iam:GetPolicyVersion"),
        writes=(),
        events=(
            "iam:CreatePolicy",
            "iam:CreatePolicyVersion",
            "iam:SetDefaultPolicyVersion",
            "iam:AttachUserPolicy",
            "iam:AttachGroupPolicy",
            "iam:AttachRolePolicy",
        ),
        aka=(
            "prowler:iam_customer_attached_policy_no_administrative_privileges",
            "securityhub:IAM.1",
            "cis-aws-6.0:2.15",
        ),
        guide=written(
            means="""A policy of the account's own is attached to something, and one of its
                statements allows every action on every resource.""",
            matters="""It is AdministratorAccess under another name, which reviews that look for
                that name do not find. Whoever has it can give it to anybody.""",
            console="""IAM > Policies > the policy > Entities attached shows who has it; Access
                Advisor on each of them shows what they really use; then Edit the policy to
                that.""",
            cli="""
                aws iam list-entities-for-policy --policy-arn POLICY
                aws accessanalyzer start-policy-generation \\
                  --policy-generation-details principalArn=ROLE
                aws iam create-policy-version --policy-arn POLICY --set-as-default \\
                  --policy-document file://narrower.json""",
            terraform="""
                data "aws_iam_policy_document" "this" {
                  statement {
                    actions   = ["s3:GetObject"]
                    resources = ["arn:aws:s3:::reports/*"]
                  }
                }""",
            by_hand="""What the policy's holders really need only they can say. To detach it would
                stop them at once, and where the holder is the last administrator lock everybody
                out.""",
            breaks="""Whatever the narrower policy forgot is refused. Keep the old version, which
                IAM does by itself up to five, until some weeks have passed.""",
            back="aws iam set-default-policy-version with the old version's id.",
        ),
    ),
    Rule(
        id="aws_iam_server_certificate_not_expired",
        kind="aws.iam.server_certificate",
        severity=Severity.MEDIUM,
        title="Server certificate kept in IAM has not expired",
        passes=has_not_expired,
        fix=None,
        reads=("iam:ListServerCertificates",),
        writes=(),
        events=("iam:UploadServerCertificate", "iam:DeleteServerCertificate"),
        aka=(
            "prowler:iam_no_expired_server_certificates_stored",
            "securityhub:IAM.26",
            "cis-aws-6.0:2.18",
        ),
        guide=written(
            means="The certificate's time is over, and it is still kept in IAM.",
            matters="""A load balancer that serves it gives every visitor a warning; put there by
                mistake, it takes a site down. Certificates of ACM renew themselves.""",
            console="""The console does not show certificates of IAM, but for the listeners that use
                them: EC2 > Load balancers > the listener > Certificates. Put one of ACM in its
                place there, then delete the old one by the CLI.""",
            cli="""
                aws iam list-server-certificates
                aws elbv2 describe-listeners --load-balancer-arn BALANCER
                aws iam delete-server-certificate --server-certificate-name NAME""",
            terraform="""
                resource "aws_lb_listener" "https" {
                  certificate_arn = aws_acm_certificate.this.arn
                }""",
            by_hand="""IAM gives a certificate's private key to nobody: what is deleted cannot be
                put back. And where a listener still uses it, deleting it is no help.""",
            breaks="""Nothing, where no load balancer and no distribution uses it. Look first: IAM
                does not always notice that one is still in use, and a load balancer whose
                certificate is gone may stop taking traffic.""",
            back="""Upload it again, with its private key, if you have that: aws iam
                upload-server-certificate.""",
        ),
    ),
)
