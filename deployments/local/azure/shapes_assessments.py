"""Microsoft.Security's assessments: what Defender for Cloud found of each resource."""

from __future__ import annotations

from deployments.local.azure.plain import OBJECT, TEXT, Shape, one_of, shape

ASSESSMENTS = (
    Shape(
        type="Microsoft.Security/assessments",
        api_versions=("2020-01-01", "2021-06-01"),
        methods="PUT DELETE",
        located=False,
        extension=True,
        wide=True,
        properties={
            "status": shape(
                code=one_of("Healthy", "Unhealthy", "NotApplicable"), cause=TEXT, description=TEXT
            ),
            "resourceDetails": OBJECT,
            "additionalData": OBJECT,
        },
        read_only=frozenset({"displayName", "links", "metadata"}),
    ),
)
