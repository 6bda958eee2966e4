"""What Suture reads of KMS: the customer's own keys. AWS's are nobody's to judge."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Item, Part, listed

_ROTATION = Call(
    call="kms:GetKeyRotationStatus", params={"KeyId": "{KeyId}"}, take="KeyRotationEnabled"
)


def _may_rotate(key: Item) -> bool:
    """Rotating by itself is for enabled symmetric keys whose material KMS made."""
    wanted = {"KeySpec": "SYMMETRIC_DEFAULT", "Origin": "AWS_KMS", "KeyState": "Enabled"}
    return wanted.items() <= key.items()


COLLECTORS = (
    listed(
        "aws.kms.key",
        Call(call="kms:ListKeys", take="Keys"),
        id="{Arn}",
        name="{KeyId}",
        detail=Call(call="kms:DescribeKey", params={"KeyId": "{KeyId}"}, take="KeyMetadata"),
        again={"KeyId": "{last}"},
        only=lambda key: key["KeyManager"] == "CUSTOMER",
        keep=("KeyId", "KeyState", "KeySpec", "KeyUsage", "Origin", "Enabled"),
        parts=(Part(name="Rotation", call=_ROTATION, where=_may_rotate),),
    ),
)
