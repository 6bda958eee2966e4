"""Where moto strays from EC2 on instances, images and snapshots."""

from __future__ import annotations

from moto.core.responses import ActionResult
from moto.ec2.exceptions import EC2ClientError
from moto.ec2.responses._base_response import EC2BaseResponse
from moto.ec2.responses.amis import AmisResponse
from moto.ec2.responses.elastic_block_store import ElasticBlockStore
from moto.ec2.responses.instances import InstanceResponse

from deployments.local.aws import gaps_ec2

# parameter -> moto's attribute, and what EC2 takes.
_OPTIONS = {
    "HttpTokens": ("http_tokens", ("optional", "required")),
    "HttpEndpoint": ("http_endpoint", ("enabled", "disabled")),
    "HttpProtocolIpv6": ("http_protocol_ipv6", ("enabled", "disabled")),
    "InstanceMetadataTags": ("instance_metadata_tags", ("enabled", "disabled")),
}
_modify_image_attribute = AmisResponse.modify_image_attribute
_modify_snapshot_attribute = ElasticBlockStore.modify_snapshot_attribute


def install() -> None:
    InstanceResponse.modify_instance_metadata_options = _modify_metadata_options
    ElasticBlockStore.describe_snapshots = _describe_snapshots
    ElasticBlockStore.modify_snapshot_attribute = _share_snapshot
    AmisResponse.modify_image_attribute = _share_image


def _modify_metadata_options(self: InstanceResponse) -> ActionResult:
    """moto forgets every option that the call does not name; EC2 leaves it as it is."""
    instance = self.ec2_backend.get_instance(self._get_param("InstanceId"))
    options = instance.metadata_options
    for parameter, (attribute, known) in _OPTIONS.items():
        value = self._get_param(parameter)
        if value is None:
            continue
        if value not in known:
            raise EC2ClientError(
                "InvalidParameterValue", f"Value ({value}) for parameter {parameter} is invalid."
            )
        setattr(options, attribute, value)
    hops = self._get_int_param("HttpPutResponseHopLimit")
    if hops is not None:
        options.http_put_response_hop_limit = hops
    return ActionResult({"InstanceId": instance.id, "InstanceMetadataOptions": options})


def _describe_snapshots(self: ElasticBlockStore) -> ActionResult:
    """moto looks neither at owners nor at who may restore a snapshot."""
    backend = self.ec2_backend
    found = backend.describe_snapshots(
        snapshot_ids=self._get_param("SnapshotIds", []), filters=self._filters_from_querystring()
    )
    if owners := self._get_param("OwnerIds", []):
        known = {self.current_account if one == "self" else one for one in owners}
        found = [one for one in found if one.owner_id in known]
    if restorers := set(self._get_param("RestorableByUserIds", [])):
        found = [
            one
            for one in found
            if restorers & ({"all"} if "all" in one.create_volume_permission_groups else set())
            or restorers & set(one.create_volume_permission_userids)
            or ("self" in restorers and one.owner_id == self.current_account)
        ]
    return ActionResult({"Snapshots": found})


def _share_snapshot(self: ElasticBlockStore) -> ActionResult:
    """EC2 makes no encrypted snapshot public, and none at all where that is blocked."""
    added = _added(self, "CreateVolumePermission")
    if self._get_param("OperationType") == "add":
        added |= set(self._get_param("GroupNames", []))
    if "all" in added:
        _refuse_where_blocked(self, "Snapshot")
        if self.ec2_backend.get_snapshot(self._get_param("SnapshotId")).encrypted:
            raise EC2ClientError(
                "InvalidParameterValue", "Encrypted snapshots cannot be shared publicly."
            )
    return _modify_snapshot_attribute(self)


def _share_image(self: AmisResponse) -> ActionResult:
    added = _added(self, "LaunchPermission")
    if self._get_param("OperationType") == "add":
        added |= set(self._get_param("UserGroups", []))
    if "all" in added:
        _refuse_where_blocked(self, "Image")
    return _modify_image_attribute(self)


def _added(self: EC2BaseResponse, parameter: str) -> set[str]:
    """The groups that a call lets in."""
    return {one.get("Group", "") for one in self._get_param(parameter, {}).get("Add", [])}


def _refuse_where_blocked(self: EC2BaseResponse, thing: str) -> None:
    if gaps_ec2.sharing(self.current_account, self.region, thing) != gaps_ec2.OPEN:
        raise EC2ClientError(
            "OperationNotPermitted",
            f"{thing}s cannot be shared publicly: block public access is enabled.",
        )
