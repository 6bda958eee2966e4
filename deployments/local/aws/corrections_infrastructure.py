"""Where moto strays from AWS on the infrastructure and security services that Suture fixes."""

from __future__ import annotations

import copy
from typing import Any

from moto.cloudfront.models import CloudFrontBackend, Distribution, random_id
from moto.cloudfront.responses import CloudFrontResponse
from moto.cloudtrail.models import CloudTrailBackend, Trail
from moto.core.exceptions import JsonRESTError, ServiceException
from moto.core.responses import ActionResult
from moto.eks.models import Cluster, EKSBackend
from moto.elbv2.exceptions import ELBClientError
from moto.elbv2.models import ELBv2Backend, FakeListener
from moto.kms.models import KmsBackend, kms_backends
from moto.opensearch.models import OpenSearchDomain
from moto.rds.exceptions import DBParameterGroupNotFoundError, RDSClientError
from moto.rds.models import DBParameterGroup, RDSBackend, SnapshotAttributesMixin
from moto.rds.responses import RDSResponse


def install() -> None:
    Trail.__init__ = _new_trail  # type: ignore[method-assign]
    Trail.put_event_selectors = _put_event_selectors  # type: ignore[method-assign]
    CloudTrailBackend.update_trail = _update_trail  # type: ignore[method-assign]
    KmsBackend.schedule_key_deletion = _schedule_key_deletion  # type: ignore[method-assign]
    KmsBackend.cancel_key_deletion = _cancel_key_deletion  # type: ignore[method-assign]
    RDSResponse.describe_db_parameters = _describe_db_parameters  # type: ignore[method-assign]
    RDSBackend.modify_db_parameter_group = _modify_parameters  # type: ignore[method-assign]
    SnapshotAttributesMixin.modify_attribute = _modify_attribute  # type: ignore[method-assign]
    EKSBackend.update_cluster_config = _update_cluster_config  # type: ignore[method-assign]
    OpenSearchDomain.update = _update_domain  # type: ignore[method-assign]
    ELBv2Backend.modify_listener = _modify_listener  # type: ignore[method-assign]
    Distribution.__init__ = _new_distribution  # type: ignore[method-assign]
    CloudFrontBackend.update_distribution = _update_distribution  # type: ignore[method-assign]
    CloudFrontResponse.get_distribution_config = _get_config  # type: ignore[method-assign]


# ---------------------------------------------------------------- CloudTrail

_trail_init = Trail.__init__
_update = CloudTrailBackend.update_trail
_MANAGEMENT_EVENTS = {
    "ReadWriteType": "All",
    "IncludeManagementEvents": True,
    "DataResources": [],
    "ExcludeManagementEventSources": [],
}


def _new_trail(self: Trail, *args: Any, **kwargs: Any) -> None:
    """A trail that nobody has given selectors records management events; moto answers none."""
    _trail_init(self, *args, **kwargs)
    self.event_selectors = [dict(_MANAGEMENT_EVENTS)]


def _put_event_selectors(self: Trail, event_selectors: Any, advanced_event_selectors: Any) -> None:
    """One form replaces the other, which moto keeps beside it; five basic ones at most."""
    if bool(event_selectors) == bool(advanced_event_selectors):
        raise JsonRESTError(
            "InvalidEventSelectorsException",
            "Give either event selectors or advanced event selectors.",
        )
    if len(event_selectors or ()) > 5:
        raise JsonRESTError(
            "InvalidEventSelectorsException", "A trail has at most 5 event selectors."
        )
    self.event_selectors = [{**_MANAGEMENT_EVENTS, **one} for one in event_selectors or ()]
    self.advanced_event_selectors = list(advanced_event_selectors or ())


def _update_trail(self: CloudTrailBackend, name: str, **wanted: Any) -> Trail:
    """A key is kept by its ARN and must be there; an empty one takes it away."""
    trail = self.get_trail(name)
    every = wanted["is_multi_region_trail"]
    globally = wanted["include_global_service_events"]
    if (trail.is_multi_region if every is None else every) and not (
        trail.include_global_service_events if globally is None else globally
    ):
        raise JsonRESTError(
            "InvalidParameterCombinationException",
            "Multi-Region trail must include global service events.",
        )
    if wanted["kms_key_id"]:
        wanted["kms_key_id"] = _key_arn(self, wanted["kms_key_id"])
    took_away = wanted["kms_key_id"] == ""
    trail = _update(self, name=name, **wanted)
    if took_away:
        trail.kms_key_id = None  # type: ignore[assignment]
    return trail


def _key_arn(backend: CloudTrailBackend, named: str) -> str:
    keys = kms_backends[backend.account_id][backend.region_name]
    for key in keys.keys.values():
        if named in (key.id, key.arn, *key.aliases):
            return str(key.arn)
    raise JsonRESTError("KmsKeyDoesNotExistException", f"There is no key {named}.")


# ---------------------------------------------------------------- KMS

_schedule_deletion = KmsBackend.schedule_key_deletion
_cancel_deletion = KmsBackend.cancel_key_deletion


def _schedule_key_deletion(self: KmsBackend, key_id: str, pending_window_in_days: int) -> float:
    """A key that is to be deleted is not to be deleted once more."""
    if self.keys[key_id].key_state == "PendingDeletion":
        raise JsonRESTError("KMSInvalidStateException", f"{key_id} is pending deletion.")
    return _schedule_deletion(self, key_id, pending_window_in_days)


def _cancel_key_deletion(self: KmsBackend, key_id: str) -> None:
    if self.keys[key_id].key_state != "PendingDeletion":
        raise JsonRESTError("KMSInvalidStateException", f"{key_id} is not pending deletion.")
    _cancel_deletion(self, key_id)


# ---------------------------------------------------------------- RDS

_modify_group = RDSBackend.modify_db_parameter_group


def tls_parameter(family: str) -> dict[str, Any] | None:
    """The parameter that asks for TLS as the engine has it, of the families that know one."""
    if family.startswith(("mysql", "mariadb")):
        known = {"ParameterName": "require_secure_transport"}
        allowed = "ON,OFF" if family.startswith("mariadb") else "0,1"
        rest = {"AllowedValues": allowed, "Source": "engine-default", "ApplyType": "dynamic"}
    elif family.startswith(("postgres", "sqlserver")):
        since = family.removeprefix("postgres")
        on = since.isdigit() and int(since) >= 15
        known = {"ParameterName": "rds.force_ssl", "ParameterValue": "1" if on else "0"}
        kind = "static" if family.startswith("sqlserver") else "dynamic"
        rest = {"AllowedValues": "0,1", "Source": "system", "ApplyType": kind}
    else:
        return None
    return {**known, **rest, "IsModifiable": True, "DataType": "boolean"}


def _describe_db_parameters(self: RDSResponse) -> ActionResult:
    """moto knows those that somebody has set, and no filter."""
    name = self.params.get("DBParameterGroupName")
    groups = self.backend.describe_db_parameter_groups({"db_parameter_group_name": name})
    if not name or not groups:
        raise DBParameterGroupNotFoundError(name)
    found = {key: dict(value) for key, value in groups[0].parameters.items()}
    known = tls_parameter(groups[0].family or "")
    if known is not None:
        found[known["ParameterName"]] = {**known, **found.get(known["ParameterName"], {})}
    for one in self.params.get("Filters", []):
        if one["Name"] != "parameter-name":
            raise RDSClientError("InvalidParameterValue", f"Unrecognized filter: {one['Name']}")
        found = {key: value for key, value in found.items() if key in one["Values"]}
    return ActionResult({"Parameters": list(found.values())})


def _modify_parameters(
    self: RDSBackend, db_parameter_group_name: str, db_parameter_group_parameters: Any
) -> DBParameterGroup:
    """AWS's own groups stay as they are; what somebody has set is theirs; values are checked."""
    if db_parameter_group_name.startswith("default."):
        raise RDSClientError(
            "InvalidParameterValue", f"Group {db_parameter_group_name} cannot be modified."
        )
    group = self.db_parameter_groups.get(db_parameter_group_name)
    known = tls_parameter((group.family if group else "") or "")
    wanted = [dict(one) for one in db_parameter_group_parameters]
    for one in wanted:
        if known and one["ParameterName"] == known["ParameterName"]:
            if one["ParameterValue"] not in known["AllowedValues"].split(","):
                raise RDSClientError("InvalidParameterValue", "Invalid parameter value.")
            if known["ApplyType"] == "static" and one["ApplyMethod"] == "immediate":
                raise RDSClientError(
                    "InvalidParameterCombination",
                    "cannot use immediate apply method for static parameter",
                )
        one["Source"] = "user"
    return _modify_group(self, db_parameter_group_name, wanted)


_share = SnapshotAttributesMixin.modify_attribute


def _modify_attribute(
    self: SnapshotAttributesMixin, attribute_name: str, values_to_add: Any, values_to_remove: Any
) -> None:
    """Whom a snapshot is shared with is a set: moto shares it twice with the same account."""
    there = self.attributes.get(attribute_name, [])
    new = [one for one in dict.fromkeys(values_to_add or ()) if one not in there]
    _share(self, attribute_name, new, values_to_remove)


# ---------------------------------------------------------------- EKS

_update_cluster = EKSBackend.update_cluster_config
_LOG_TYPES = ("api", "audit", "authenticator", "controllerManager", "scheduler")


def _update_cluster_config(self: EKSBackend, name: str, **wanted: Any) -> Cluster:
    """Types of log that a call does not name stay as they are; moto forgets them."""
    logging, cluster = wanted.pop("logging", None), self.clusters.get(name)
    if cluster is not None and logging:
        on = _logged(cluster.logging)
        for group in logging["clusterLogging"]:
            kinds = set(group["types"])
            if not kinds <= set(_LOG_TYPES):
                raise JsonRESTError("InvalidParameterException", "Unknown type of log.")
            on = on | kinds if group["enabled"] else on - kinds
        if on == _logged(cluster.logging):
            raise JsonRESTError(
                "InvalidParameterException",
                "No changes needed for the logging config provided",
            )
        groups = [(True, on), (False, set(_LOG_TYPES) - on)]
        wanted["logging"] = {
            "clusterLogging": [
                {"types": sorted(kinds), "enabled": enabled} for enabled, kinds in groups if kinds
            ]
        }
    return _update_cluster(self, name=name, **wanted)


def _logged(logging: Any) -> set[str]:
    return {kind for one in logging["clusterLogging"] if one["enabled"] for kind in one["types"]}


# ---------------------------------------------------------------- OpenSearch

_update_opensearch = OpenSearchDomain.update


def _update_domain(self: OpenSearchDomain, **wanted: Any) -> None:
    """Encryption, once on, is not turned off, and an empty policy takes it away; not so in moto."""
    for name in ("encryption_at_rest_options", "node_to_node_encryption_options"):
        asked, has = wanted.get(name), getattr(self, name)
        if asked and has["Enabled"] and not asked.get("Enabled", True):
            raise JsonRESTError("ValidationException", "Encryption cannot be disabled.")
    if wanted.get("access_policies") == "":
        self.access_policies = ""
    _update_opensearch(self, **wanted)


# ---------------------------------------------------------------- Elastic Load Balancing

_modify_one_listener = ELBv2Backend.modify_listener
_ACTIONS = {
    "authenticate-cognito",
    "authenticate-oidc",
    "fixed-response",
    "forward",
    "redirect",
}


def _modify_listener(
    self: ELBv2Backend,
    arn: str,
    port: Any = None,
    protocol: Any = None,
    ssl_policy: Any = None,
    certificates: Any = None,
    actions: Any = None,
) -> FakeListener:
    """moto takes any action."""
    for action in actions or ():
        if action.get("Type") not in _ACTIONS:
            raise ELBClientError("ValidationError", "Action type is not valid")
        if action["Type"] == "redirect":
            code = action.get("RedirectConfig", {}).get("StatusCode")
            if code not in ("HTTP_301", "HTTP_302"):
                raise ELBClientError("ValidationError", "StatusCode must be HTTP_301 or HTTP_302")
    return _modify_one_listener(self, arn, port, protocol, ssl_policy, certificates, actions)


# ---------------------------------------------------------------- CloudFront

_distribution_init = Distribution.__init__
_update_one_distribution = CloudFrontBackend.update_distribution


def _new_distribution(self: Distribution, *args: Any, **kwargs: Any) -> None:
    """moto forgets what it does not know of a configuration; here it is kept as it was sent."""
    config = kwargs.get("config", args[-1] if args else None)
    sent = copy.deepcopy(config)
    _distribution_init(self, *args, **kwargs)
    self.sent = sent  # type: ignore[attr-defined]


def _update_distribution(
    self: CloudFrontBackend, dist_config: dict[str, Any], _id: str, if_match: Any
) -> tuple[Distribution, str, str]:
    """Only of the version that was read last, which is another one afterwards."""
    known = self.distributions.get(_id)
    sent = copy.deepcopy(dist_config)
    if known is not None and if_match and if_match != known.etag:
        raise ServiceException(
            "PreconditionFailed", "The request failed because it didn't meet the preconditions."
        )
    if known is not None and sent.get("CallerReference") != known.sent["CallerReference"]:
        raise ServiceException("IllegalUpdate", "CallerReference cannot be changed.")
    made, location, _ = _update_one_distribution(self, dist_config, _id, if_match)
    made.sent, made.etag = sent, random_id()  # type: ignore[attr-defined]
    return made, location, made.etag


def _get_config(self: CloudFrontResponse) -> ActionResult:
    _, etag = self.backend.get_distribution_config(self._get_param("Id"))
    known = self.backend.distributions[self._get_param("Id")]
    return ActionResult({"DistributionConfig": known.sent, "ETag": etag})
