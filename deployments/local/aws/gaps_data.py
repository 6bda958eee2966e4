"""What moto lacks of data services: X-Ray's encryption, Athena's updates, Glacier's policies."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moto.athena.models import athena_backends
from moto.glacier.models import glacier_backends

from deployments.local.aws.errors import Refusal
from deployments.local.aws.policy import MalformedPolicy, parse_resource_policy

if TYPE_CHECKING:
    from deployments.local.aws.gaps import Asked, Gap


# --- X-Ray ------------------------------------------------------------------------------------


def _get_encryption_config(asked: Asked) -> Mapping[str, Any]:
    return {"EncryptionConfig": asked.state.get("config", {"Type": "NONE", "Status": "ACTIVE"})}


def _put_encryption_config(asked: Asked) -> Mapping[str, Any]:
    kind, key = asked.params.get("Type"), asked.params.get("KeyId")
    if kind not in ("NONE", "KMS") or (kind == "KMS") != bool(key):
        raise Refusal("InvalidRequestException", "KeyId goes with Type KMS, and only with that.")
    asked.state["config"] = {"Type": kind, "Status": "ACTIVE", **({"KeyId": key} if key else {})}
    return _get_encryption_config(asked)


# --- Athena -----------------------------------------------------------------------------------

_RESULTS = ("OutputLocation", "EncryptionConfiguration", "ExpectedBucketOwner", "AclConfiguration")


def _update_work_group(asked: Asked) -> Mapping[str, Any]:
    name = asked.params.get("WorkGroup", "")
    workgroup = athena_backends[asked.account][asked.region].work_groups.get(name)
    if workgroup is None:
        raise Refusal("InvalidRequestException", f"WorkGroup {name} is not found.")
    if "Description" in asked.params:
        workgroup.description = asked.params["Description"]
    if "State" in asked.params:
        workgroup.state = asked.params["State"]
    updates = dict(asked.params.get("ConfigurationUpdates", {}))
    changed = updates.pop("ResultConfigurationUpdates", {})
    results = dict(workgroup.configuration.get("ResultConfiguration", {}))
    for member in _RESULTS:
        if member in changed and changed.get(f"Remove{member}"):
            raise Refusal("InvalidRequestException", f"{member} is both set and removed.")
        if member in changed:
            results[member] = changed[member]
        elif changed.get(f"Remove{member}"):
            results.pop(member, None)
    how = results.get("EncryptionConfiguration", {})
    if how and (how.get("EncryptionOption") != "SSE_S3") != bool(how.get("KmsKey")):
        raise Refusal("InvalidRequestException", "KmsKey goes with SSE_KMS and CSE_KMS.")
    workgroup.configuration = {**workgroup.configuration, **updates, "ResultConfiguration": results}
    return {}


# --- Glacier ----------------------------------------------------------------------------------


def _vault(asked: Asked) -> str:
    name = asked.params.get("vaultName", "")
    if name not in glacier_backends[asked.account][asked.region].vaults:
        raise _not_found(f"Vault not found for ARN: {asked.arn('glacier', f'vaults/{name}')}")
    return str(name)


def _not_found(message: str) -> Refusal:
    return Refusal("ResourceNotFoundException", message, status=404)


def _get_vault_access_policy(asked: Asked) -> Mapping[str, Any]:
    policy = asked.state.get(_vault(asked))
    if policy is None:
        raise _not_found("No vault access policy is set.")
    return {"policy": {"Policy": policy}}


def _set_vault_access_policy(asked: Asked) -> Mapping[str, Any]:
    vault, policy = _vault(asked), asked.params.get("Policy", "")
    try:
        parse_resource_policy(policy)
    except MalformedPolicy as problem:
        raise Refusal("InvalidParameterValueException", str(problem)) from None
    asked.state[vault] = policy
    return {}


def _delete_vault_access_policy(asked: Asked) -> Mapping[str, Any]:
    asked.state.pop(_vault(asked), None)
    return {}


GAPS: dict[tuple[str, str], Gap] = {
    ("xray", "GetEncryptionConfig"): _get_encryption_config,
    ("xray", "PutEncryptionConfig"): _put_encryption_config,
    ("athena", "UpdateWorkGroup"): _update_work_group,
    ("glacier", "GetVaultAccessPolicy"): _get_vault_access_policy,
    ("glacier", "SetVaultAccessPolicy"): _set_vault_access_policy,
    ("glacier", "DeleteVaultAccessPolicy"): _delete_vault_access_policy,
}
