"""Regional settings of EC2 that moto lacks: public snapshots and images, IMDS defaults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from moto.ec2.models import ec2_backends

from deployments.local.aws.errors import Refusal
from deployments.local.aws.gaps import GAPS, Asked, Gap

OPEN = "unblocked"


def sharing(account: str, region: str, thing: str) -> str:
    """The state of the block: what moto does about a call has to heed it."""
    return str(getattr(ec2_backends[account][region], f"{thing}_sharing".lower(), OPEN))


def _set_sharing(asked: Asked, thing: str, state: str) -> None:
    setattr(ec2_backends[asked.account][asked.region], f"{thing}_sharing".lower(), state)


def _parameter(asked: Asked, name: str, known: tuple[str, ...]) -> str:
    value = asked.params.get(name)
    if value is None:
        raise Refusal(
            "MissingParameter",
            f"The request must contain the parameter {name[0].lower()}{name[1:]}",
        )
    if value not in known:
        raise Refusal(
            "InvalidParameterValue", f"Value ({value}) for parameter {name} is invalid. {known}"
        )
    return str(value)


# --- public sharing -----------------------------------------------------------------------------


def _sharing(thing: str, parameter: str, states: tuple[str, ...]) -> dict[tuple[str, str], Gap]:
    """Get, enable and disable the block of one kind of thing."""

    def get(asked: Asked) -> Mapping[str, Any]:
        return {parameter: sharing(asked.account, asked.region, thing), "ManagedBy": "account"}

    def enable(asked: Asked) -> Mapping[str, Any]:
        state = _parameter(asked, parameter, states)
        _set_sharing(asked, thing, state)
        return {parameter: state}

    def disable(asked: Asked) -> Mapping[str, Any]:
        _set_sharing(asked, thing, OPEN)
        return {parameter: OPEN}

    return {
        ("ec2", f"Get{thing}BlockPublicAccessState"): get,
        ("ec2", f"Enable{thing}BlockPublicAccess"): enable,
        ("ec2", f"Disable{thing}BlockPublicAccess"): disable,
    }


# --- instance metadata --------------------------------------------------------------------------

_NO_PREFERENCE = "no-preference"
_DEFAULTS = {
    "HttpTokens": ("optional", "required", _NO_PREFERENCE),
    "HttpEndpoint": ("enabled", "disabled", _NO_PREFERENCE),
    "InstanceMetadataTags": ("enabled", "disabled", _NO_PREFERENCE),
    "HttpPutResponseHopLimit": ("-1", *map(str, range(1, 65))),
}


def _get_metadata_defaults(asked: Asked) -> Mapping[str, Any]:
    return {"AccountLevel": {**asked.state.get("metadata", {}), "ManagedBy": "account"}}


def _modify_metadata_defaults(asked: Asked) -> Mapping[str, Any]:
    """What is not named stays; no preference is as if it had never been set."""
    wanted = {
        name: _parameter(asked, name, known)
        for name, known in _DEFAULTS.items()
        if name in asked.params
    }
    kept = {**asked.state.get("metadata", {}), **wanted}
    asked.state["metadata"] = {
        name: int(value) if name == "HttpPutResponseHopLimit" else value
        for name, value in kept.items()
        if value not in (_NO_PREFERENCE, "-1")
    }
    return {"Return": True}


GAPS |= {
    **_sharing("Snapshot", "State", ("block-all-sharing", "block-new-sharing")),
    **_sharing("Image", "ImageBlockPublicAccessState", ("block-new-sharing",)),
    ("ec2", "GetInstanceMetadataDefaults"): _get_metadata_defaults,
    ("ec2", "ModifyInstanceMetadataDefaults"): _modify_metadata_defaults,
}
