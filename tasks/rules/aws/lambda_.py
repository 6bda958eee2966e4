"""Lambda's rules: policies of functions let no stranger in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step
from tasks.rules.aws.policies import (
    Statement,
    in_words,
    lets_no_stranger_in,
    open_statements,
    statements_of,
    title_of,
)
from tasks.rules.guide import written
from tasks.rules.shape import mapping, text

# A function's policy is written a statement at a time, by parameters that stand for these.
_PARAMETERS = {
    ("arnlike", "aws:sourcearn"): "SourceArn",
    ("stringequals", "aws:sourceaccount"): "SourceAccount",
    ("stringequals", "aws:principalorgid"): "PrincipalOrgID",
    ("stringequals", "lambda:eventsourcetoken"): "EventSourceToken",
    ("stringequals", "lambda:functionurlauthtype"): "FunctionUrlAuthType",
    ("bool", "lambda:invokedviafunctionurl"): "InvokedViaFunctionUrl",
}


def closed(resource: Resource) -> bool:
    return lets_no_stranger_in(resource.config["Policy"])


def close(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Removes every statement for strangers; the undo adds it again as it was.

    Raises BadInput for a statement that AddPermission could not write again.
    """
    if closed(resource):
        return ()
    policy = mapping(resource.config["Policy"], "Policy")
    statements = statements_of(policy)
    return tuple(_removal(resource, statements[place], place) for place in open_statements(policy))


def _removal(resource: Resource, statement: Statement, place: int) -> Step:
    named = {"FunctionName": text(resource.config["FunctionName"], "FunctionName")}
    again = _permission(resource, statement)
    remove = {**named, "StatementId": again["StatementId"]}
    return Step(
        "lambda:RemovePermission",
        Call(Cloud.AWS, "lambda", "RemovePermission", remove),
        (Call(Cloud.AWS, "lambda", "AddPermission", {**named, **again}),),
        (Change(title_of(statement, place), in_words(statement), "taken out"),),
    )


def _permission(resource: Resource, statement: Statement) -> dict[str, Any]:
    """AddPermission's parameters that make just this statement."""
    sid, action = statement.get("Sid"), statement.get("Action")
    plain = {"Sid", "Effect", "Principal", "Action", "Resource", "Condition"}
    if (
        not isinstance(sid, str)
        or not isinstance(action, str)
        or statement.get("Principal") != "*"
        or statement.get("Resource") != resource.id
        or not statement.keys() <= plain
    ):
        raise _cannot_be_added(statement)
    found: dict[str, Any] = {"StatementId": sid, "Action": action, "Principal": "*"}
    for operator, keys in mapping(statement.get("Condition", {}), "Policy").items():
        for key, value in mapping(keys, "Policy").items():
            parameter = _PARAMETERS.get((operator.lower(), key.lower()))
            if parameter is None or not isinstance(value, str):
                raise _cannot_be_added(statement)
            found[parameter] = value
    if "InvokedViaFunctionUrl" in found:
        if found["InvokedViaFunctionUrl"] not in ("true", "false"):
            raise _cannot_be_added(statement)
        found["InvokedViaFunctionUrl"] = found["InvokedViaFunctionUrl"] == "true"
    return found


def _cannot_be_added(statement: Statement) -> BadInput:
    return BadInput(
        "Policy",
        f"the statement {statement.get('Sid')!r} could not be added again as it is.",
        "Follow the guide of this rule by hand.",
    )


RULES = (
    Rule(
        id="aws_lambda_function_policy_closed_to_strangers",
        kind="aws.lambda.function",
        severity=Severity.HIGH,
        title="Lambda function policy lets no stranger in",
        passes=closed,
        fix=close,
        reads=("lambda:ListFunctions", "lambda:GetPolicy"),
        writes=("lambda:RemovePermission", "lambda:AddPermission"),
        events=(
            "lambda:CreateFunction20150331",
            "lambda:AddPermission20150331v2",
            "lambda:RemovePermission20150331v2",
        ),
        aka=("prowler:awslambda_function_not_publicly_accessible",),
        guide=written(
            means="""A statement of the function's policy allows everyone to invoke it, and no
                condition ties it to an account, an organization or a source ARN. A function URL
                without authentication has such a statement, too. Policies of versions and aliases
                are not looked at.""",
            matters="""Anybody may run your code with the rights of its role, feed it whatever they
                like, and run up its bill.""",
            console="Lambda > the function > Configuration > Permissions > Resource-based policy.",
            cli="""
                aws lambda get-policy --function-name NAME
                aws lambda remove-permission --function-name NAME --statement-id SID""",
            terraform="""
                resource "aws_lambda_permission" "this" {
                  action         = "lambda:InvokeFunction"
                  function_name  = aws_lambda_function.this.function_name
                  principal      = "s3.amazonaws.com"
                  source_arn     = aws_s3_bucket.uploads.arn
                  source_account = "111122223333"
                }""",
            fix="""It removes the statements that let strangers in, one by one by their ids, and
                leaves every other statement as it is. A statement that could not be added again
                just as it is, is left for you.""",
            breaks="""Whoever invokes the function by such a statement: a public function URL, a
                webhook, a partner. Give those a statement that names them, or put an API Gateway
                or CloudFront with authentication in front of it first.""",
            back="""Suture's undo adds the statements again, with the ids, actions and conditions
                they had.""",
        ),
    ),
)
