"""An emulated Azure: Entra's token endpoint and Azure Resource Manager, for the real SDKs."""
