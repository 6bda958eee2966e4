"""The embedded default: PostgreSQL from a wheel, a Prefect server, an emulated fleet."""
