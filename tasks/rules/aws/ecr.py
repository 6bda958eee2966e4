"""ECR's rules: policies of repositories let no stranger in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Call, Cloud, Resource, Rule, Severity
from tasks.rules.aws.policies import lets_no_stranger_in, shut
from tasks.rules.guide import written
from tasks.rules.shape import text


def closed(resource: Resource) -> bool:
    return lets_no_stranger_in(resource.config["Policy"])


def _call(operation: str, resource: Resource, **params: Any) -> Call:
    named: Mapping[str, Any] = {
        "repositoryName": text(resource.config["repositoryName"], "repositoryName")
    }
    return Call(Cloud.AWS, "ecr", operation, {**named, **params})


RULES = (
    Rule(
        id="aws_ecr_repository_policy_closed_to_strangers",
        kind="aws.ecr.repository",
        severity=Severity.HIGH,
        title="ECR repository policy lets no stranger in",
        passes=closed,
        fix=shut(
            # ECR asks for force where a policy could lock its writer out, as the old one may.
            put=lambda repository, policy: _call(
                "SetRepositoryPolicy", repository, policyText=policy, force=True
            ),
            put_action="ecr:SetRepositoryPolicy",
            drop=lambda repository: _call("DeleteRepositoryPolicy", repository),
            drop_action="ecr:DeleteRepositoryPolicy",
        ),
        reads=("ecr:DescribeRepositories", "ecr:GetRepositoryPolicy"),
        writes=("ecr:SetRepositoryPolicy", "ecr:DeleteRepositoryPolicy"),
        events=(
            "ecr:CreateRepository",
            "ecr:SetRepositoryPolicy",
            "ecr:DeleteRepositoryPolicy",
        ),
        aka=("prowler:ecr_repositories_not_publicly_accessible",),
        guide=written(
            means="""A statement of the repository's policy allows everyone ("*", or all but some),
                and no condition ties it to an account, an organization or a VPC endpoint, nor does
                a Deny take it back.""",
            matters="""Whoever has an AWS account may pull your images, with the code and at times
                the secrets in them; with rights to push, they may replace what you run.""",
            console="ECR > Repositories > the repository > Permissions > Edit.",
            cli="""
                aws ecr get-repository-policy --repository-name NAME
                aws ecr set-repository-policy --repository-name NAME \\
                  --policy-text file://policy.json""",
            terraform="""
                resource "aws_ecr_repository_policy" "this" {
                  repository = aws_ecr_repository.this.name
                  policy     = data.aws_iam_policy_document.pull_from_our_accounts.json
                }""",
            fix="""It takes out the statements that let strangers in, and leaves every other
                statement as it is. Where none would be left, it deletes the policy.""",
            breaks="""Other accounts that pull by such a statement: name them, or your organization,
                in a statement of their own first. The own account's roles need no policy here.""",
            back="Suture's undo writes the old policy again, statement by statement.",
        ),
    ),
)
