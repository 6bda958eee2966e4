"""MySQL's and PostgreSQL's rules. Both are built alike: single servers of old, flexible ones now.

What a flexible server's engine does are its configurations: children of the server, each a value.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model import Rule, Severity
from tasks.rules.azure.setting import Home, setting
from tasks.rules.guide import written

SINGLE_API = "2017-12-01"


@dataclass(frozen=True, slots=True)
class Engine:
    """One of the two services: its names, its api-version, and how it writes on and off."""

    name: str
    service: str
    namespace: str
    cli: str
    terraform: str
    api_version: str
    on: str
    off: str


MYSQL = Engine(
    name="MySQL",
    service="dbformysql",
    namespace="Microsoft.DBforMySQL",
    cli="mysql",
    terraform="mysql",
    api_version="2023-12-30",
    on="ON",
    off="OFF",
)
POSTGRESQL = Engine(
    name="PostgreSQL",
    service="dbforpostgresql",
    namespace="Microsoft.DBforPostgreSQL",
    cli="postgres",
    terraform="postgresql",
    api_version="2024-08-01",
    on="on",
    off="off",
)


def _ssl(engine: Engine, aka: tuple[str, ...]) -> Rule:
    """A single server refuses connections that are not encrypted."""
    write = f"{engine.namespace}/servers/write"
    return setting(
        f"azure_{engine.service}_server_ssl_enforced",
        f"azure.{engine.service}.server",
        Severity.HIGH,
        f"{engine.name} server refuses connections without TLS",
        Home(method="PATCH", api_version=SINGLE_API, action=write),
        "sslEnforcement",
        good=("Enabled",),
        bad=("Disabled",),
        meaning="connections without TLS are refused",
        reads=(f"{engine.namespace}/servers/read",),
        aka=aka,
        guide=written(
            means=f"""The {engine.name} single server takes connections that are not encrypted, when
                a client asks for none.""",
            matters="""The password, every query and every answer can then be read on the way, and
                changed.""",
            portal=f"Azure Database for {engine.name} > the server > Connection security > SSL.",
            cli=f"az {engine.cli} server update -g GROUP -n SERVER --ssl-enforcement Enabled",
            terraform=f"""
                resource "azurerm_{engine.terraform}_server" "this" {{
                  ssl_enforcement_enabled          = true
                  ssl_minimal_tls_version_enforced = "TLS1_2"
                }}""",
            fix="""It enables the enforcement; the least version of TLS stays what it is. Azure has
                retired single servers: a flexible server is where to go.""",
            breaks="Clients that connect without TLS. Connections that stand are not cut.",
        ),
    )


def _public_network(engine: Engine, *, flexible: bool) -> Rule:
    """The server has no public address. Whether somebody needs it, only its owner can tell."""
    kind, path = ("flexibleServers", "network.") if flexible else ("servers", "")
    resource = "flexible_server" if flexible else "server"
    write = f"{engine.namespace}/{kind}/write"
    command = "flexible-server" if flexible else "server"
    table = f"{engine.terraform}_{'flexible_server' if flexible else 'server'}"
    version = engine.api_version if flexible else SINGLE_API
    return setting(
        f"azure_{engine.service}_{resource}_public_network_off",
        f"azure.{engine.service}.{resource}",
        Severity.HIGH,
        f"{engine.name} {'flexible ' if flexible else ''}server has no public network access",
        Home(method="PATCH", api_version=version, action=write),
        f"{path}publicNetworkAccess",
        good=("Disabled",),
        bad=("Enabled",),
        meaning="only private endpoints reach the server; its firewall rules stay, without effect",
        reads=(f"{engine.namespace}/{kind}/read",),
        guide=written(
            means="""The server has a public address, which its firewall rules may open. A server
                that is only used from a virtual network needs none.""",
            matters="""What can be reached is tried: passwords are guessed all day, and a firewall
                rule that somebody adds in a hurry opens the rest.""",
            portal=f"Azure Database for {engine.name} > the server > Networking > Public access.",
            cli=f"az {engine.cli} {command} update -g GROUP -n SERVER --public-access Disabled",
            terraform=f"""
                resource "azurerm_{table}" "this" {{
                  public_network_access_enabled = false
                }}""",
            fix="""It disables public network access. Look first whether the server has a private
                endpoint, and whether everybody who needs it comes that way.""",
            breaks="Every client that connects to the public address, those in Azure too.",
        ),
    )


def _configuration(
    engine: Engine,
    name: str,
    good_state: str,
    severity: Severity,
    title: str,
    meaning: str,
    *,
    means: str,
    matters: str,
    breaks: str,
    aka: tuple[str, ...],
) -> Rule:
    """The row of one configuration of a flexible server that must be on."""
    server = f"{engine.namespace}/flexibleServers"
    home = Home(
        method="PUT",
        api_version=engine.api_version,
        action=f"{server}/configurations/write",
        part=name,
        path=f"/configurations/{name}",
        beside={"source": "user-override"},
    )
    return setting(
        f"azure_{engine.service}_flexible_server_{good_state}",
        f"azure.{engine.service}.flexible_server",
        severity,
        title,
        home,
        "value",
        good=(engine.on, engine.on.swapcase()),
        bad=(engine.off, engine.off.swapcase()),
        meaning=meaning,
        reads=(f"{server}/read", f"{server}/configurations/read"),
        aka=aka,
        guide=written(
            means=means,
            matters=matters,
            portal=f"Azure Database for {engine.name} > the server > Server parameters > {name}.",
            cli=f"""
                az {engine.cli} flexible-server parameter set -g GROUP -s SERVER \\
                    --name {name} --value {engine.on}""",
            terraform=f"""
                resource "azurerm_{engine.terraform}_flexible_server_configuration" "this" {{
                  server_id = azurerm_{engine.terraform}_flexible_server.this.id
                  name      = "{name}"
                  value     = "{engine.on}"
                }}""",
            fix=f"""It sets the server parameter {name} to {engine.on}. The parameter is dynamic:
                the server takes it over without a restart.""",
            breaks=breaks,
            back="""Suture's undo sets the old value. Where that was Azure's default, it is from
                then on one that somebody has set, with the same effect.""",
        ),
    )


def _secure_transport(engine: Engine, aka: tuple[str, ...]) -> Rule:
    return _configuration(
        engine,
        "require_secure_transport",
        "secure_transport_required",
        Severity.HIGH,
        f"{engine.name} flexible server refuses connections without TLS",
        "connections without TLS are refused",
        means="The server takes connections that are not encrypted, when a client asks for none.",
        matters="""The password, every query and every answer can then be read on the way, and
            changed.""",
        breaks="Clients that connect without TLS. Connections that stand are not cut.",
        aka=aka,
    )


def _logging(name: str, what: str, matters: str, aka: str) -> Rule:
    return _configuration(
        POSTGRESQL,
        name,
        f"{name}_on",
        Severity.LOW,
        f"PostgreSQL flexible server logs {what}",
        f"the server's log has {what}",
        means=f"The server parameter {name} is off: the server's log says nothing of {what}.",
        matters=matters,
        breaks="Nothing. The log grows, by a line or two for each.",
        aka=(f"prowler:{aka}",),
    )


RULES = (
    _ssl(MYSQL, ("cloudsploit:enforceMySQLSSLConnection",)),
    _public_network(MYSQL, flexible=False),
    _secure_transport(MYSQL, ("prowler:mysql_flexible_server_ssl_connection_enabled",)),
    _public_network(MYSQL, flexible=True),
    _ssl(POSTGRESQL, ("cloudsploit:enforcePostgresSSLConnection",)),
    _public_network(POSTGRESQL, flexible=False),
    _secure_transport(POSTGRESQL, ("prowler:postgresql_flexible_server_enforce_ssl_enabled",)),
    _public_network(POSTGRESQL, flexible=True),
    _logging(
        "log_checkpoints",
        "checkpoints",
        """Checkpoints that come too often, or take too long, are the first sign of a server that
        cannot keep up, or of one that is being kept busy.""",
        "postgresql_flexible_server_log_checkpoints_on",
    ),
    _logging(
        "log_connections",
        "connections",
        """Who tried to connect, from where and as whom, is what tells a guessed password from a
        colleague's mistake.""",
        "postgresql_flexible_server_log_connections_on",
    ),
    _logging(
        "log_disconnections",
        "ends of sessions",
        """With the end of a session comes how long it was: what was open all night, and whose it
        was, is seen nowhere else.""",
        "postgresql_flexible_server_log_disconnections_on",
    ),
    _configuration(
        POSTGRESQL,
        "connection_throttle.enable",
        "connection_throttling_on",
        Severity.MEDIUM,
        "PostgreSQL flexible server slows down who fails to sign in",
        "an address with too many failed sign-ins has to wait",
        means="""The server parameter connection_throttle.enable is off: an address may fail to sign
            in as often as it likes.""",
        matters="""Guessing a password takes many tries. A wait after each few of them makes a
            guess of days one of years, and keeps the server free for others.""",
        breaks="""A client with a wrong password that tries again and again has to wait, and with it
            all others behind the same address.""",
        aka=("prowler:postgresql_flexible_server_connection_throttling_on",),
    ),
)
