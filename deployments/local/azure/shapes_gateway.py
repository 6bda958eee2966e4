"""Microsoft.Network's application gateways, their firewall policies, and bastion hosts."""

from __future__ import annotations

from deployments.local.azure.plain import (
    BOOLEAN,
    LIST,
    OBJECT,
    TEXT,
    Plain,
    Shape,
    one_of,
    shape,
    whole,
)
from deployments.local.azure.protocol import ArmError, ArmRequest

API = ("2024-05-01", "2023-11-01")
_TIERS = one_of("Basic", "Standard", "Standard_v2", "WAF", "WAF_v2")
_LISTS = (
    "authenticationCertificates",
    "backendAddressPools",
    "backendHttpSettingsCollection",
    "backendSettingsCollection",
    "customErrorConfigurations",
    "frontendIPConfigurations",
    "frontendPorts",
    "gatewayIPConfigurations",
    "httpListeners",
    "listeners",
    "loadDistributionPolicies",
    "privateLinkConfigurations",
    "probes",
    "redirectConfigurations",
    "requestRoutingRules",
    "rewriteRuleSets",
    "routingRules",
    "sslCertificates",
    "sslProfiles",
    "trustedClientCertificates",
    "trustedRootCertificates",
    "urlPathMaps",
)


def _with_rules(policy: Plain, _request: ArmRequest) -> None:
    """A policy cannot be without managed rules, and says what nobody set of its settings."""
    sets = policy.properties.get("managedRules", {}).get("managedRuleSets")
    if not sets:
        raise ArmError(
            400,
            "ApplicationGatewayFirewallManagedRuleSetsNotSpecified",
            f"No managed rule set is specified for the policy '{policy.name}'.",
        )
    said = policy.properties.get("policySettings") or {}
    policy.properties["policySettings"] = {**_SETTINGS, **said}


_SETTINGS = {
    "state": "Enabled",
    "mode": "Detection",
    "requestBodyCheck": True,
    "maxRequestBodySizeInKb": 128,
    "fileUploadLimitInMb": 100,
}

GATEWAYS = (
    Shape(
        type="Microsoft.Network/applicationGateways",
        api_versions=API,
        methods="PUT DELETE",
        etags=True,
        top={"identity": OBJECT, "zones": LIST},
        properties={
            "sku": shape(name=TEXT, tier=_TIERS, capacity=whole(1, 125), family=TEXT),
            "sslPolicy": shape(
                policyType=one_of("Predefined", "Custom", "CustomV2"),
                policyName=TEXT,
                minProtocolVersion=one_of("TLSv1_0", "TLSv1_1", "TLSv1_2", "TLSv1_3"),
                disabledSslProtocols=LIST,
                cipherSuites=LIST,
            ),
            "enableHttp2": BOOLEAN,
            "enableFips": BOOLEAN,
            "webApplicationFirewallConfiguration": OBJECT,
            "firewallPolicy": shape(id=TEXT),
            "forceFirewallPolicyAssociation": BOOLEAN,
            "autoscaleConfiguration": OBJECT,
            "globalConfiguration": OBJECT,
            **dict.fromkeys(_LISTS, LIST),
        },
        read_only=frozenset(
            {"operationalState", "privateEndpointConnections", "defaultPredefinedSslPolicy"}
        ),
        defaults={
            "operationalState": "Running",
            "defaultPredefinedSslPolicy": "AppGwSslPolicy20220101",
        },
    ),
    Shape(
        type="Microsoft.Network/ApplicationGatewayWebApplicationFirewallPolicies",
        api_versions=API,
        methods="PUT DELETE",
        etags=True,
        properties={
            "policySettings": shape(
                state=one_of("Enabled", "Disabled"),
                mode=one_of("Prevention", "Detection"),
                requestBodyCheck=BOOLEAN,
                requestBodyEnforcement=BOOLEAN,
                requestBodyInspectLimitInKB=whole(1, 2000),
                maxRequestBodySizeInKb=whole(8, 2000),
                fileUploadEnforcement=BOOLEAN,
                fileUploadLimitInMb=whole(1, 4000),
                customBlockResponseStatusCode=whole(0, 599),
                customBlockResponseBody=TEXT,
                logScrubbing=OBJECT,
                jsChallengeCookieExpirationInMins=whole(5, 1440),
            ),
            "customRules": LIST,
            "managedRules": shape(managedRuleSets=LIST, exclusions=LIST, exceptions=LIST),
        },
        read_only=frozenset(
            {
                "applicationGateways",
                "applicationGatewayForContainers",
                "httpListeners",
                "pathBasedRules",
                "resourceState",
                "provisioningState",
            }
        ),
        defaults={"resourceState": "Enabled", "provisioningState": "Succeeded"},
        after=_with_rules,
    ),
    Shape(
        type="Microsoft.Network/bastionHosts",
        api_versions=API,
        etags=True,
        top={"sku": OBJECT, "zones": LIST},
        properties={"ipConfigurations": LIST, "dnsName": TEXT, "scaleUnits": whole(2, 50)},
    ),
)
