"""What Suture reads of Glue: how a region's Data Catalog is encrypted."""

from __future__ import annotations

from tasks.clouds.aws_reading import Call, Part, settings

COLLECTORS = (
    settings(
        "aws.glue.data_catalog",
        (
            Part(
                name="EncryptionSettings",
                call=Call(
                    call="glue:GetDataCatalogEncryptionSettings",
                    take="DataCatalogEncryptionSettings",
                ),
            ),
        ),
        id="arn:{partition}:glue:{region}:{account}:catalog",
        name="Data Catalog in {region}",
    ),
)
