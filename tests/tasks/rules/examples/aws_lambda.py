"""Lambda's rules: examples, what Lambda makes of their calls, and how to plant them."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from collections.abc import Mapping
from typing import Any

from tasks.model import Call, in_order

FUNCTION = "arn:aws:lambda:eu-central-1:111122223333:function:resize"
CONDITIONS = {
    "SourceArn": ("ArnLike", "AWS:SourceArn"),
    "SourceAccount": ("StringEquals", "AWS:SourceAccount"),
    "PrincipalOrgID": ("StringEquals", "aws:PrincipalOrgID"),
    "FunctionUrlAuthType": ("StringEquals", "lambda:FunctionUrlAuthType"),
    "InvokedViaFunctionUrl": ("Bool", "lambda:InvokedViaFunctionUrl"),
}


def apply(config: dict[str, Any], call: Call) -> None:
    params = dict(call.params)
    assert params.pop("FunctionName") == config["FunctionName"]
    sid = params.pop("StatementId")
    policy = config["Policy"] or {"Version": "2012-10-17", "Id": "default", "Statement": []}
    others = [one for one in policy["Statement"] if one["Sid"] != sid]
    if call.operation == "RemovePermission":
        assert len(others) == len(policy["Statement"]) - 1
    else:
        assert call.operation == "AddPermission"
        assert len(others) == len(policy["Statement"])
        made: dict[str, Any] = {"Sid": sid, "Effect": "Allow", "Resource": FUNCTION}
        made |= {"Principal": params.pop("Principal"), "Action": params.pop("Action")}
        for name, value in params.items():
            operator, key = CONDITIONS[name]
            text = str(value).lower() if isinstance(value, bool) else value
            made.setdefault("Condition", {}).setdefault(operator, {})[key] = text
        others.append(made)
    config["Policy"] = {**policy, "Statement": others} if others else None


def plant(cloud: Any, config: Mapping[str, Any]) -> str:
    name = f"planted-{uuid.uuid4().hex}"
    trust = {"Effect": "Allow", "Principal": {"Service": "lambda.amazonaws.com"}}
    role = cloud.client("iam").create_role(
        RoleName=name,
        AssumeRolePolicyDocument=json.dumps(
            {"Version": "2012-10-17", "Statement": [{**trust, "Action": "sts:AssumeRole"}]}
        ),
    )
    code = io.BytesIO()
    with zipfile.ZipFile(code, "w") as archive:
        archive.writestr("main.py", "def handle(event, context): pass")
    functions = cloud.client("lambda")
    functions.create_function(
        FunctionName=name,
        Runtime="python3.12",
        Role=role["Role"]["Arn"],
        Handler="main.handle",
        Code={"ZipFile": code.getvalue()},
    )
    for statement in (config["Policy"] or {"Statement": ()})["Statement"]:
        functions.add_permission(FunctionName=name, **permission(statement))
    return f"arn:aws:lambda:{cloud.region}:{cloud.account}:function:{name}"


def permission(statement: Mapping[str, Any]) -> dict[str, Any]:
    principal = statement["Principal"]
    if isinstance(principal, dict):
        (principal,) = principal.values()
    made = {"StatementId": statement["Sid"], "Action": statement["Action"], "Principal": principal}
    for name, (operator, key) in CONDITIONS.items():
        if key in statement.get("Condition", {}).get(operator, {}):
            value = statement["Condition"][operator][key]
            made[name] = value == "true" if operator == "Bool" else value
    return made


def function(*statements: dict[str, Any]) -> dict[str, Any]:
    policy = {"Version": "2012-10-17", "Id": "default", "Statement": list(statements)}
    return {"FunctionName": "resize", "Policy": policy if statements else None}


def statement(sid: str, principal: Any = "*", **more: Any) -> dict[str, Any]:
    return {
        "Sid": sid,
        "Effect": "Allow",
        "Principal": principal,
        "Action": "lambda:InvokeFunction",
        "Resource": FUNCTION,
        **more,
    }


BUCKET = {
    "ArnLike": {"AWS:SourceArn": "arn:aws:s3:::acme-uploads"},
    "StringEquals": {"AWS:SourceAccount": "111122223333"},
}
UPLOADS = statement("uploads", {"Service": "s3.amazonaws.com"}, Condition=BUCKET)
OURS = statement("ours", Condition={"StringEquals": {"aws:PrincipalOrgID": "o-a1b2c3d4e5"}})
URL = statement(
    "FunctionURLAllowPublicAccess",
    Action="lambda:InvokeFunctionUrl",
    Condition={"StringEquals": {"lambda:FunctionUrlAuthType": "NONE"}},
)
BY_URL = statement(
    "FunctionURLInvokeAllowPublicAccess",
    Condition={"Bool": {"lambda:InvokedViaFunctionUrl": "true"}},
)
ANY_BUCKET = statement("any", Condition={"ArnLike": {"AWS:SourceArn": "arn:aws:s3:::acme-*"}})

EXAMPLES: dict[str, Any] = {
    "aws_lambda_function_policy_closed_to_strangers": (
        [function(), function(UPLOADS), function(OURS, UPLOADS)],
        [
            function(URL, BY_URL, UPLOADS),
            function(statement("everyone")),
            function(OURS, ANY_BUCKET, statement("everyone")),
        ],
        "Policy",
    ),
}
KINDS: dict[str, Any] = {
    "aws.lambda.function": {"id": FUNCTION, "apply": apply, "plant": plant, "snapshot": in_order},
}
