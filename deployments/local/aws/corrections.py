"""Where moto strays from AWS on calls that Suture makes: the documented behaviour instead.

``install()`` replaces methods of moto's classes, once per process.
"""

from __future__ import annotations

import base64
import functools
import hashlib
import ipaddress
import json
from collections.abc import Sequence
from typing import Any

from moto.core.responses import ActionResult
from moto.ec2.exceptions import (
    EC2ClientError,
    InvalidSecurityGroupNotFoundError,
    InvalidSecurityGroupRuleIdNotFoundError,
)
from moto.ec2.responses.availability_zones_and_regions import AvailabilityZonesAndRegions
from moto.ec2.responses.security_groups import SecurityGroups
from moto.iam.access_control import PermissionResult
from moto.iam.exceptions import ValidationError
from moto.iam.responses import IamResponse
from moto.organizations.exceptions import AWSOrganizationsNotInUseException, InvalidInputException
from moto.organizations.responses import OrganizationsResponse
from moto.s3.exceptions import S3ClientError
from moto.s3.models import FakeBucket
from moto.s3.responses import S3Response

from deployments.local.aws import (
    corrections_data,
    corrections_ec2,
    corrections_iam,
    corrections_infrastructure,
    queues,
    shortcuts,
)

ORGANIZATION_PAGE = 20  # ListAccounts: "MaxResults … valid range 1 to 20"


@functools.cache
def install() -> None:
    corrections_ec2.install()
    corrections_iam.install()
    corrections_data.install()
    queues.install()
    shortcuts.install()
    AvailabilityZonesAndRegions.describe_regions = _describe_regions
    SecurityGroups.describe_security_groups = _describe_security_groups
    SecurityGroups.authorize_security_group_ingress = _authorize("ingress")
    SecurityGroups.authorize_security_group_egress = _authorize("egress")
    SecurityGroups.revoke_security_group_ingress = _revoke("ingress")
    SecurityGroups.revoke_security_group_egress = _revoke("egress")
    SecurityGroups.modify_security_group_rules = _modify
    OrganizationsResponse.list_accounts = _list_accounts
    IamResponse.get_account_password_policy = _get_account_password_policy
    IamResponse.update_account_password_policy = _checked_password_policy
    S3Response.all_buckets = _list_buckets
    # moto would apply a bucket policy without its conditions; the gate has applied it in full.
    FakeBucket.get_permission = lambda *_: PermissionResult.NEUTRAL
    corrections_infrastructure.install()


# ---------------------------------------------------------------- paging


def _token(position: int) -> str:
    return base64.urlsafe_b64encode(f"position {position:08}".encode()).decode()


def _position(token: str) -> int:
    """Where a page starts. Raises ValueError for a token we did not give."""
    word, _, number = base64.urlsafe_b64decode(token).decode().partition(" ")
    if word != "position":
        raise ValueError(token)
    return int(number)


def _page(items: Sequence[Any], token: str | None, size: int) -> tuple[Sequence[Any], str | None]:
    start = _position(token) if token else 0
    end = start + size
    return items[start:end], _token(end) if end < len(items) else None


def _describe_security_groups(self: SecurityGroups) -> ActionResult:
    """moto ignores MaxResults and NextToken."""
    self.error_on_dryrun()
    size, token = self._get_param("MaxResults"), self._get_param("NextToken")
    ids = self._get_param("GroupIds", [])
    if size is not None and ids:
        raise EC2ClientError(
            "InvalidParameterCombination",
            "The parameter groupId cannot be used with the parameter maxResults",
        )
    if size is not None and not 5 <= int(size) <= 1000:
        raise EC2ClientError(
            "InvalidParameterValue",
            f"Value ( {size} ) for parameter maxResults is invalid. Expecting a value "
            "between 5 and 1000.",
        )
    groups = self.ec2_backend.describe_security_groups(
        group_ids=ids,
        groupnames=self._get_param("GroupNames", []),
        filters=self._filters_from_querystring(),
    )
    try:
        page, following = _page(groups, token, int(size or 1000))
    except ValueError:
        raise EC2ClientError("InvalidNextToken", "The token is not valid.") from None
    return ActionResult({"SecurityGroups": page, "NextToken": following})


def _list_accounts(self: OrganizationsResponse) -> str:
    """moto pages by 100 and by the time of joining, which is no key."""
    organization = self.organizations_backend
    if organization.org is None:
        raise AWSOrganizationsNotInUseException
    size = self._get_param("MaxResults", ORGANIZATION_PAGE)
    if not 1 <= size <= ORGANIZATION_PAGE:
        raise InvalidInputException("You specified an invalid value for MaxResults.")
    accounts = [account.describe() for account in organization.accounts]
    try:
        page, following = _page(accounts, self._get_param("NextToken"), size)
    except ValueError:
        raise InvalidInputException("You specified an invalid value for NextToken.") from None
    return json.dumps(
        {"Accounts": page, **({"NextToken": following} if following else {})}, default=str
    )


def _list_buckets(self: S3Response) -> Any:
    """moto forgets continuation and regions. S3 names regions once any parameter is given."""
    size, token = self._get_param("max-buckets"), self._get_param("continuation-token")
    prefix, region = self._get_param("prefix"), self._get_param("bucket-region")
    found = self.backend.list_buckets(prefix=prefix, bucket_region=region, max_buckets=None)
    try:
        page, following = _page(sorted(found, key=lambda b: b.name), token, int(size or 10_000))
    except ValueError:
        raise S3ClientError("InvalidArgument", "The continuation token is not valid.") from None
    with_region = any((size, token, prefix, region))
    buckets = [
        {
            "Name": bucket.name,
            "CreationDate": bucket.creation_date_ISO8601,
            **({"BucketRegion": bucket.region_name} if with_region else {}),
        }
        for bucket in page
    ]
    owner = hashlib.sha256(self.current_account.encode()).hexdigest()
    answer = {"Owner": {"ID": owner}, "Buckets": buckets, "ContinuationToken": following}
    self.data["Action"] = "ListBuckets"
    return self.serialized(ActionResult(answer))


# ---------------------------------------------------------------- regions


def _describe_regions(self: AvailabilityZonesAndRegions) -> ActionResult:
    """moto also lists the regions an account has not opted in to, asked or not."""
    self.error_on_dryrun()
    regions = self.ec2_backend.describe_regions(self._get_param("RegionNames", []))
    if str(self._get_param("AllRegions", "false")).lower() != "true":
        regions = [one for one in regions if one.opt_in_status != "not-opted-in"]
    return ActionResult({"Regions": regions})


# ---------------------------------------------------------------- password policy


def _get_account_password_policy(self: IamResponse) -> ActionResult:
    """AWS leaves out what was never set, where moto answers 0 (which AWS refuses to take back)."""
    policy = self.backend.get_account_password_policy()
    members = {
        "MinimumPasswordLength": policy.minimum_password_length,
        "RequireSymbols": policy.require_symbols,
        "RequireNumbers": policy.require_numbers,
        "RequireUppercaseCharacters": policy.require_uppercase_characters,
        "RequireLowercaseCharacters": policy.require_lowercase_characters,
        "AllowUsersToChangePassword": policy.allow_users_to_change_password,
        "ExpirePasswords": policy.expire_passwords,
        "HardExpiry": policy.hard_expiry,
    }
    if policy.max_password_age:
        members["MaxPasswordAge"] = policy.max_password_age
    if policy.password_reuse_prevention:
        members["PasswordReusePrevention"] = policy.password_reuse_prevention
    return ActionResult({"PasswordPolicy": members})


_update_account_password_policy = IamResponse.update_account_password_policy
_PASSWORD_RANGES = {
    "MinimumPasswordLength": (6, 128),
    "MaxPasswordAge": (1, 1095),
    "PasswordReusePrevention": (1, 24),
}


def _checked_password_policy(self: IamResponse) -> ActionResult:
    """moto checks upper bounds only."""
    for name, (least, most) in _PASSWORD_RANGES.items():
        value = self._get_int_param(name)
        if value is not None and not least <= value <= most:
            raise ValidationError(
                f"1 validation error detected: Value '{value}' at '{name[0].lower()}{name[1:]}' "
                f"failed to satisfy constraint: Member must have value between {least} and {most}"
            )
    return _update_account_password_policy(self)


# ---------------------------------------------------------------- rules of security groups


def _authorize(direction: str) -> Any:
    """All permissions of a call or none of them; the answer lists every rule added."""

    def authorize(self: SecurityGroups) -> ActionResult:
        self.error_on_dryrun()
        backend, added = self.ec2_backend, []
        wanted = [_checked(kwargs) for kwargs in self._process_rules_from_querystring()]
        before = _rules(backend, wanted, direction)
        try:
            for kwargs in wanted:
                rules, _ = getattr(backend, f"authorize_security_group_{direction}")(**kwargs)
                added += rules
        except EC2ClientError:
            _put_back(backend, wanted, direction, before)
            raise
        return ActionResult({"Return": True, "SecurityGroupRules": added})

    return authorize


def _revoke(direction: str) -> Any:
    """All permissions of a call or none of them; one that is not there is an error."""

    def revoke(self: SecurityGroups) -> ActionResult:
        self.error_on_dryrun()
        backend = self.ec2_backend
        wanted = [_checked(kwargs) for kwargs in self._process_rules_from_querystring()]
        before = _rules(backend, wanted, direction)
        try:
            for kwargs in wanted:
                del kwargs["sgrule_tags"]
                getattr(backend, f"revoke_security_group_{direction}")(**kwargs)
        except EC2ClientError:
            _put_back(backend, wanted, direction, before)
            raise
        return ActionResult({"Return": True})

    return revoke


# What a rule may name as its source -> how moto's rule holds it.
_SOURCES = {
    "CidrIpv4": lambda rule: rule.ip_range.get("CidrIp"),
    "CidrIpv6": lambda rule: rule.ip_range.get("CidrIpv6"),
    "PrefixListId": lambda rule: rule.prefix_list_id,
    "ReferencedGroupId": lambda rule: rule.source_group.get("GroupId"),
}


def _modify(self: SecurityGroups) -> ActionResult:
    """moto changes IPv4 rules only, and stops half-way at a bad one."""
    self.error_on_dryrun()
    group_id = self._get_param("GroupId")
    group = self.ec2_backend.get_security_group_by_name_or_id(group_id)
    if group is None:
        raise InvalidSecurityGroupNotFoundError(group_id)
    changes = []
    for update in self._get_param("SecurityGroupRules", []):
        rule = group.get_rule(update["SecurityGroupRuleId"])
        if rule is None:
            raise InvalidSecurityGroupRuleIdNotFoundError(update["SecurityGroupRuleId"])
        changes.append((rule, _checked_update(rule, update["SecurityGroupRule"])))
    for rule, wanted in changes:
        _change(rule, wanted)
    return ActionResult({"Return": True})


def _checked_update(rule: Any, wanted: dict[str, Any]) -> dict[str, Any]:
    named = [source for source in _SOURCES if source in wanted]
    if len(named) != 1:
        raise EC2ClientError(
            "InvalidParameterCombination",
            "Exactly one of cidrIpv4, cidrIpv6, prefixListId and referencedGroupId must be given.",
        )
    if _SOURCES[named[0]](rule) is None:
        raise EC2ClientError(
            "InvalidParameterValue", f"Invalid rule type for security group rule '{rule.id}'."
        )
    if not wanted.get("IpProtocol"):
        raise EC2ClientError("InvalidParameterValue", "Invalid value 'null' for protocol.")
    if wanted["IpProtocol"] in {"tcp", "udp"}:
        _check_ports(wanted.get("FromPort"), wanted.get("ToPort"))
    return wanted


def _change(rule: Any, wanted: dict[str, Any]) -> None:
    rule.ip_protocol = wanted["IpProtocol"]
    everything = rule.ip_protocol == "-1"
    rule.from_port = None if everything else int(wanted["FromPort"])
    rule.to_port = None if everything else int(wanted["ToPort"])
    described = {"Description": wanted["Description"]} if wanted.get("Description") else {}
    if "CidrIpv4" in wanted:
        rule.ip_range = {"CidrIp": _canonical(wanted["CidrIpv4"]), **described}
    elif "CidrIpv6" in wanted:
        rule.ip_range = {"CidrIpv6": _canonical(wanted["CidrIpv6"]), **described}
    elif "PrefixListId" in wanted:
        rule.prefix_list_id = wanted["PrefixListId"]
    else:
        rule.source_group = {"GroupId": wanted["ReferencedGroupId"], **described}


def _group(backend: Any, wanted: list[dict[str, Any]]) -> Any | None:
    name = wanted[0]["group_name_or_id"] if wanted else ""
    return backend.get_security_group_by_name_or_id(name) if name else None


def _rules(backend: Any, wanted: list[dict[str, Any]], direction: str) -> list[Any]:
    group = _group(backend, wanted)
    return list(getattr(group, f"{direction}_rules")) if group else []


def _put_back(backend: Any, wanted: list[dict[str, Any]], direction: str, rules: list[Any]) -> None:
    if group := _group(backend, wanted):
        setattr(group, f"{direction}_rules", rules)


def _checked(permission: dict[str, Any]) -> dict[str, Any]:
    """What EC2 refuses, or writes differently, before it looks at the group."""
    checked = {**permission, "ip_ranges": [dict(one) for one in permission["ip_ranges"]]}
    if checked["security_rule_ids"]:
        return checked
    protocol = checked["ip_protocol"]
    if not protocol:
        raise EC2ClientError(
            "InvalidParameterValue",
            "Invalid value 'null' for protocol. VPC security group rules must specify protocols "
            "explicitly.",
        )
    if not (checked["ip_ranges"] or checked["source_groups"] or checked["prefix_list_ids"]):
        raise EC2ClientError(
            "InvalidPermission.Malformed", "The permission names no source or destination."
        )
    if str(protocol).lower() in {"tcp", "udp", "6", "17"}:
        _check_ports(checked["from_port"], checked["to_port"])
    for ip_range in checked["ip_ranges"]:
        for key in ("CidrIp", "CidrIpv6"):
            if key in ip_range:
                ip_range[key] = _canonical(ip_range[key])
    return checked


def _check_ports(first: Any, last: Any) -> None:
    if first is None or last is None:
        raise EC2ClientError(
            "InvalidParameterValue",
            "Invalid value for portRange. Must specify both from and to ports with TCP/UDP.",
        )
    if not 0 <= int(first) <= int(last) <= 65535:
        raise EC2ClientError(
            "InvalidParameterValue", f"Invalid value for portRange ({first}-{last})."
        )


def _canonical(cidr: str) -> str:
    """EC2 keeps the network, not the host bits: 100.68.0.18/18 is stored as 100.68.0.0/18."""
    try:
        return str(ipaddress.ip_network(cidr, strict=False)) if "/" in cidr else cidr
    except ValueError:
        return cidr  # moto's own check names it
