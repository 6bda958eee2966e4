"""Microsoft.Insights: where a resource's logs go."""

from __future__ import annotations

from deployments.local.azure.plain import BOOLEAN, LIST, OBJECT, TEXT, Plain, Shape, shape
from deployments.local.azure.protocol import ArmError, ArmRequest

_PLACES = ("workspaceId", "storageAccountId", "eventHubAuthorizationRuleId", "marketplacePartnerId")


def _goes_somewhere(one: Plain, _request: ArmRequest) -> None:
    if not any(one.properties.get(name) for name in _PLACES):
        raise ArmError(
            400, "BadRequest", "At least one data sink needs to be specified for the setting."
        )


INSIGHTS = (
    Shape(
        type="Microsoft.Insights/diagnosticSettings",
        api_versions=("2021-05-01-preview",),
        methods="PUT DELETE",
        located=False,
        extension=True,
        created=200,
        properties={
            **dict.fromkeys(_PLACES, TEXT),
            "serviceBusRuleId": TEXT,
            "eventHubName": TEXT,
            "logAnalyticsDestinationType": TEXT,
            "logs": LIST,
            "metrics": LIST,
        },
        after=_goes_somewhere,
    ),
    Shape(
        type="Microsoft.Insights/activityLogAlerts",
        api_versions=("2020-10-01", "2017-04-01"),
        properties={
            "enabled": BOOLEAN,
            "scopes": LIST,
            "condition": shape(allOf=LIST),
            "actions": OBJECT,
            "description": TEXT,
        },
        defaults={"enabled": True},
    ),
    Shape(
        type="Microsoft.Insights/components",
        api_versions=("2020-02-02",),
        top={"kind": TEXT},
        properties={
            "Application_Type": TEXT,
            "WorkspaceResourceId": TEXT,
            "RetentionInDays": TEXT,
            "IngestionMode": TEXT,
        },
    ),
)
