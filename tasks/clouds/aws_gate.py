"""The gate of an AWS account: the trust policy of the remediator's role. Customer's side."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from pydantic import SecretStr

from tasks.clouds.aws_request import AwsCredentials
from tasks.clouds.aws_write import aws_client, credentials_of, leading_region
from tasks.clouds.openings import Opening, moment, timestamp
from tasks.clouds.sdk_errors import aws_errors
from tasks.clouds.session_policy import policy_text
from tasks.errors import BadInput
from tasks.inventory import AwsSource

ADMIN_ROLE = "OrganizationAccountAccessRole"  # what AWS Organizations puts into member accounts
SID = "SutureGate"  # what the ids of our statements begin with

CLOSED: dict[str, Any] = {
    "Sid": f"{SID}Closed",
    "Effect": "Deny",
    "Principal": "*",
    "Action": "sts:AssumeRole",
}


class AwsGate:
    """Opens and closes one account for Suture's hub, with a customer's credentials.

    Where those belong to another account, ``admin_role`` is assumed in the gate's own. Statements
    of the trust policy that are not the gate's are left as they are. IAM takes no precondition:
    callers that open side by side take turns.
    """

    closes_itself = True

    def __init__(
        self,
        source: AwsSource,
        account: str,
        keys: AwsCredentials,
        admin_role: str = ADMIN_ROLE,
    ) -> None:
        self._source = source
        self._iam = _iam_of(source, account, keys, admin_role)

    def open(
        self, opening: str, code: SecretStr, until: datetime, resources: Sequence[str]
    ) -> None:
        """Let the hub in with ``<external id>:<code>`` until the moment given. Then it is closed.

        ``resources`` has no part here: the session policy of each fix narrows it.
        """
        if not self._source.hub_principal:
            raise BadInput(
                f"aws.{self._source.name}.hub_principal",
                "is missing: the gate must know whom to let in.",
                "Write the ARN of Suture's own identity.",
            )
        statement = {
            "Sid": f"{SID}{opening}",
            "Effect": "Allow",
            "Principal": {"AWS": self._source.hub_principal},
            "Action": "sts:AssumeRole",
            "Condition": {
                "StringEquals": {
                    "sts:ExternalId": f"{self._source.external_id}:{code.get_secret_value()}"
                },
                "DateLessThan": {"aws:CurrentTime": timestamp(until)},
            },
        }
        policy = self._read()
        kept = [one for one in policy["Statement"] if not _goes(one, opening)]
        self._write(policy, [*kept, statement])

    def close(self, opening: str | None = None) -> None:
        """Close one opening, or all of them. With none left, the role lets nobody in."""
        policy = self._read()
        kept = [one for one in policy["Statement"] if not _goes(one, opening, every=not opening)]
        if (kept or [CLOSED]) != policy["Statement"]:
            self._write(policy, kept or [CLOSED])

    def status(self) -> tuple[Opening, ...]:
        """The openings that let someone in right now."""
        openings = [_opening(one) for one in self._read()["Statement"] if _is_open(one)]
        return tuple(openings)

    def _read(self) -> dict[str, Any]:
        with aws_errors("GetRole"):
            role = self._iam.get_role(RoleName=_bare(self._source.remediator_role))["Role"]
        policy = dict(role["AssumeRolePolicyDocument"])
        statements = policy["Statement"]
        policy["Statement"] = [statements] if isinstance(statements, dict) else list(statements)
        return policy

    def _write(self, policy: dict[str, Any], statements: list[dict[str, Any]]) -> None:
        with aws_errors("UpdateAssumeRolePolicy"):
            self._iam.update_assume_role_policy(
                RoleName=_bare(self._source.remediator_role),
                PolicyDocument=policy_text({**policy, "Statement": statements}),
            )


def _iam_of(source: AwsSource, account: str, keys: AwsCredentials, admin_role: str) -> Any:
    region = leading_region(source)
    sts = aws_client(source, "sts", region, keys)
    try:
        with aws_errors("GetCallerIdentity"):
            own = sts.get_caller_identity()["Account"]
        if own != account:
            with aws_errors("AssumeRole"):
                answer = sts.assume_role(
                    RoleArn=source.role_arn(account, admin_role), RoleSessionName="suture-gate"
                )
            keys = credentials_of(answer)
    finally:
        sts.close()
    return aws_client(source, "iam", region, keys)


def _bare(role: str) -> str:
    """IAM's calls take a role's name without its path."""
    return role.rpartition("/")[2]


def _goes(statement: dict[str, Any], opening: str | None, *, every: bool = False) -> bool:
    """Whether a statement makes room when ``opening`` opens or closes."""
    sid = statement.get("Sid", "")
    if _is_closed(statement) or sid == f"{SID}{opening}":
        return True
    return sid.startswith(SID) and (every or not _is_open(statement))


def _is_closed(statement: dict[str, Any]) -> bool:
    """The statement that shuts everyone out, whoever wrote it."""
    shape = {key: value for key, value in statement.items() if key != "Sid"}
    everyone = shape.pop("Principal", None) in ("*", {"AWS": "*"})
    return everyone and shape == {"Effect": "Deny", "Action": "sts:AssumeRole"}


def _is_open(statement: dict[str, Any]) -> bool:
    if statement["Effect"] != "Allow" or not statement.get("Sid", "").startswith(SID):
        return False
    until = _opening(statement).expires_at
    return until is not None and until > datetime.now(UTC)


def _opening(statement: dict[str, Any]) -> Opening:
    until = statement.get("Condition", {}).get("DateLessThan", {}).get("aws:CurrentTime", "")
    return Opening(statement["Sid"].removeprefix(SID), moment(until))
