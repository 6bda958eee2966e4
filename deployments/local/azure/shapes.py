"""The plain resource types of the emulated ARM: what the rule table reads and writes, as a table.

After the ARM REST reference of each type; one module for each namespace.
"""

from __future__ import annotations

from deployments.local.azure.shapes_assessments import ASSESSMENTS
from deployments.local.azure.shapes_compute import COMPUTE
from deployments.local.azure.shapes_databases import DATABASES
from deployments.local.azure.shapes_databricks import DATABRICKS
from deployments.local.azure.shapes_gateway import GATEWAYS
from deployments.local.azure.shapes_insights import INSIGHTS
from deployments.local.azure.shapes_keyvault import KEYVAULT
from deployments.local.azure.shapes_network import NETWORK
from deployments.local.azure.shapes_security import SECURITY
from deployments.local.azure.shapes_sql import SQL
from deployments.local.azure.shapes_storage import STORAGE
from deployments.local.azure.shapes_web import WEB

SHAPES = (
    *STORAGE,
    *KEYVAULT,
    *INSIGHTS,
    *COMPUTE,
    *WEB,
    *SECURITY,
    *SQL,
    *DATABASES,
    *NETWORK,
    *GATEWAYS,
    *DATABRICKS,
    *ASSESSMENTS,
)
