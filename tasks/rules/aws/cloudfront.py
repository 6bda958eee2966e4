"""CloudFront's rules: viewers use HTTPS."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any

from tasks.errors import BadInput
from tasks.model import Call, Change, Cloud, Resource, Rule, Severity, Step, made
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd, sequence, text

_PART = "DistributionConfig"
_POLICY = "ViewerProtocolPolicy"
_GOOD = ("https-only", "redirect-to-https")


def _config(resource: Resource) -> Mapping[str, Any]:
    return mapping(resource.config[_PART], _PART)


def _behaviours(config: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every cache behaviour with the paths it is for."""
    yield "*", mapping(config.get("DefaultCacheBehavior"), f"{_PART}.DefaultCacheBehavior")
    more = mapping(config.get("CacheBehaviors") or {}, f"{_PART}.CacheBehaviors")
    for one in sequence(more.get("Items") or [], f"{_PART}.CacheBehaviors"):
        behaviour = mapping(one, f"{_PART}.CacheBehaviors")
        yield text(behaviour.get("PathPattern"), f"{_PART}.PathPattern"), behaviour


def _plain(config: Mapping[str, Any]) -> list[str]:
    """The paths that answer over HTTP."""
    found = []
    for path, behaviour in _behaviours(config):
        policy = text(behaviour.get(_POLICY), f"{_PART}.{_POLICY}")
        if policy not in (*_GOOD, "allow-all"):
            raise odd(f"{_PART}.{_POLICY}")
        if policy not in _GOOD:
            found.append(path)
    return found


def speaks_https(resource: Resource) -> bool:
    """No cache behaviour answers over HTTP; a redirect to HTTPS is no answer."""
    return not _plain(_config(resource))


def send_to_https(resource: Resource, values: Mapping[str, Any]) -> tuple[Step, ...]:
    """Sends the whole configuration again, with redirects; the undo sends the old one.

    Raises BadInput where an origin has headers of its own: Suture keeps no values of those, and
    what is not sent again is gone.
    """
    config = _config(resource)
    paths = _plain(config)
    if not paths:
        return ()
    if _has_headers(config):
        raise BadInput(
            "Origins",
            "origins have custom headers, whose values Suture does not keep.",
            "Follow the guide of this rule by hand.",
        )
    wanted = copy.deepcopy(dict(config))
    for _, behaviour in _behaviours(wanted):
        if behaviour[_POLICY] not in _GOOD:
            behaviour[_POLICY] = "redirect-to-https"
    changes = tuple(
        Change(f"{_POLICY} of {path}", "allow-all", "redirect-to-https") for path in paths
    )
    return (
        Step(
            "cloudfront:UpdateDistribution",
            _update(resource, wanted),
            (_update(resource, config),),
            changes,
        ),
    )


def _has_headers(config: Mapping[str, Any]) -> bool:
    origins = mapping(config.get("Origins"), f"{_PART}.Origins")
    for one in sequence(origins.get("Items"), f"{_PART}.Origins"):
        headers = mapping(one, f"{_PART}.Origins").get("CustomHeaders") or {}
        if mapping(headers, f"{_PART}.CustomHeaders").get("Items"):
            return True
    return False


def _update(resource: Resource, config: Mapping[str, Any]) -> Call:
    """CloudFront takes a change only of the version that was read last: its ETag says which."""
    params = {"Id": text(resource.config["Id"], "Id"), "IfMatch": made("ETag"), _PART: config}
    return Call(Cloud.AWS, "cloudfront", "UpdateDistribution", params)


RULES = (
    Rule(
        id="aws_cloudfront_distribution_https_only",
        kind="aws.cloudfront.distribution",
        severity=Severity.MEDIUM,
        title="CloudFront distribution sends viewers to HTTPS",
        passes=speaks_https,
        fix=send_to_https,
        reads=("cloudfront:ListDistributions", "cloudfront:GetDistributionConfig"),
        writes=("cloudfront:UpdateDistribution",),
        events=(
            "cloudfront:CreateDistribution",
            "cloudfront:CreateDistributionWithTags",
            "cloudfront:UpdateDistribution",
        ),
        aka=(
            "cloudsploit:cloudfrontHttpsOnly",
            "prowler:cloudfront_distributions_https_enabled",
        ),
        guide=written(
            means="""At least one cache behaviour of the distribution answers viewers over plain
                HTTP (viewer protocol policy "HTTP and HTTPS").""",
            matters="""Pages, cookies and passwords of those requests cross the network in the
                clear, and can be changed on the way.""",
            console="""CloudFront > Distributions > the distribution > Behaviors > each behaviour >
                Edit > Viewer protocol policy > Redirect HTTP to HTTPS.""",
            cli="""
                aws cloudfront get-distribution-config --id ID
                # Edit ViewerProtocolPolicy to redirect-to-https, everywhere in it, and send all:
                aws cloudfront update-distribution --id ID --if-match ETAG \\
                    --distribution-config file://config.json""",
            terraform="""
                resource "aws_cloudfront_distribution" "this" {
                  default_cache_behavior {
                    viewer_protocol_policy = "redirect-to-https"
                  }
                }""",
            fix="""It sends the distribution's configuration again, with a redirect to HTTPS in the
                behaviours that answered over HTTP, and only if nobody has changed it meanwhile. It
                refuses where origins have custom headers: their values are secrets that Suture does
                not keep.""",
            breaks="""Clients that do not follow redirects, or that send a body with a POST, fail
                until they use HTTPS. The certificate must have every alternate name that viewers
                use. Edges take some minutes.""",
            back="""Suture's undo sends the old configuration again.""",
        ),
    ),
)
