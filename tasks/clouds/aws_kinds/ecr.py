"""What Suture reads of ECR: repositories and their policies."""

from __future__ import annotations

import json

from tasks.clouds.aws_reading import Call, Part, listed

COLLECTORS = (
    listed(
        "aws.ecr.repository",
        Call(call="ecr:DescribeRepositories", take="repositories"),
        id="{repositoryArn}",
        name="{repositoryName}",
        keep=("repositoryName",),
        parts=(
            Part(
                name="Policy",
                call=Call(
                    call="ecr:GetRepositoryPolicy",
                    params={"repositoryName": "{repositoryName}"},
                    take="policyText",
                ),
                absent=("RepositoryPolicyNotFoundException",),
                shape=json.loads,
            ),
        ),
    ),
)
