"""Glue's rules: the Data Catalog is encrypted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tasks.model import Change, Resource, Rule, Severity
from tasks.rules.aws.keys import encrypt, key_input
from tasks.rules.aws.switch import nothing
from tasks.rules.guide import written
from tasks.rules.shape import mapping, odd

_KEY = key_input("alias/aws/glue")
_PART = "EncryptionSettings"
_MODES = {"DISABLED": False, "SSE-KMS": True, "SSE-KMS-WITH-SERVICE-ROLE": True}


def _settings(resource: Resource) -> Mapping[str, Any]:
    return mapping(resource.config[_PART], _PART)


def encrypted(resource: Resource) -> bool:
    at_rest = mapping(_settings(resource).get("EncryptionAtRest"), f"{_PART}.EncryptionAtRest")
    mode = at_rest.get("CatalogEncryptionMode")
    if not isinstance(mode, str) or mode not in _MODES:
        raise odd(f"{_PART}.CatalogEncryptionMode")
    return _MODES[mode]


def _with_key(resource: Resource, key: str) -> Mapping[str, Any]:
    """Glue replaces all of the settings: that of passwords is sent again as it is."""
    at_rest = {"CatalogEncryptionMode": "SSE-KMS", "SseAwsKmsKeyId": key}
    return {"DataCatalogEncryptionSettings": {**_settings(resource), "EncryptionAtRest": at_rest}}


RULES = (
    Rule(
        id="aws_glue_data_catalog_encrypted",
        kind="aws.glue.data_catalog",
        severity=Severity.MEDIUM,
        title="Glue Data Catalog is encrypted at rest",
        passes=encrypted,
        fix=encrypt(
            "glue:PutDataCatalogEncryptionSettings",
            "glue",
            "PutDataCatalogEncryptionSettings",
            key=_KEY,
            passes=encrypted,
            names=nothing,
            good=_with_key,
            old=lambda catalog, _key: {"DataCatalogEncryptionSettings": dict(_settings(catalog))},
            changes=lambda _catalog, key: (
                Change("encryption of metadata", "off", f"on, with {key}"),
            ),
        ),
        inputs=(_KEY,),
        reads=("glue:GetDataCatalogEncryptionSettings",),
        writes=("glue:PutDataCatalogEncryptionSettings",),
        events=("glue:PutDataCatalogEncryptionSettings",),
        aka=("cloudsploit:dataCatalogEncryptionEnabled",),
        guide=written(
            means="""In this region, the account's Data Catalog keeps its metadata unencrypted:
                databases, tables, partitions, and connections.""",
            matters="""The catalog says where which data lies and how to reach it: a map of
                everything worth taking. With a KMS key, every use of it is in CloudTrail.""",
            console="AWS Glue > Data Catalog > Catalog settings > Metadata encryption.",
            cli="""
                aws glue put-data-catalog-encryption-settings \\
                  --data-catalog-encryption-settings file://settings.json""",
            terraform="""
                resource "aws_glue_data_catalog_encryption_settings" "this" {
                  data_catalog_encryption_settings {
                    connection_password_encryption {
                      return_connection_password_encrypted = true
                      aws_kms_key_id                       = aws_kms_key.catalog.arn
                    }
                    encryption_at_rest {
                      catalog_encryption_mode = "SSE-KMS"
                      sse_aws_kms_key_id      = aws_kms_key.catalog.arn
                    }
                  }
                }""",
            fix="""It turns the encryption of metadata on, with the key that the approver names or
                AWS's own for Glue. How passwords of connections are kept stays as it is.""",
            breaks="""Roles of crawlers, jobs, Athena and Redshift Spectrum need the key from then
                on for what is written anew: with a key of yours, let them use it first. Accounts
                that share the catalog cannot use AWS's own key.""",
            back="""Suture's undo puts the old settings back. What was written meanwhile stays
                encrypted: keep the key.""",
        ),
    ),
)
