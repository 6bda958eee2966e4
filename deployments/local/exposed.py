"""Which services stand behind which ports: what a planted door lets the internet reach.

Written down here by hand, apart from the rule table, which is what it tests.
"""

from __future__ import annotations

from collections.abc import Iterable

# The word in a rule's id -> (protocol, port); one of them open is enough.
SERVICES = {
    "cassandra_client": (("tcp", 9042),),
    "cassandra_internode": (("tcp", 7000), ("tcp", 7001)),
    "cassandra_monitoring": (("tcp", 7199),),
    "cassandra_thrift": (("tcp", 9160),),
    "cifs": (("udp", 445),),
    "dns": (("tcp", 53), ("udp", 53)),
    "docker": (("tcp", 2375), ("tcp", 2376)),
    "elasticsearch": (("tcp", 9200), ("tcp", 9300)),
    "ftp": (("tcp", 20), ("tcp", 21)),
    "hadoop_name_node": (("tcp", 8020),),
    "hadoop_name_node_web": (("tcp", 50070), ("tcp", 50470)),
    "internal_web": (("tcp", 8080),),
    "kafka": (("tcp", 9092),),
    "kerberos": (("tcp", 88), ("tcp", 464), ("tcp", 749), ("tcp", 750)),
    "kibana": (("tcp", 5601),),
    "ldap": (("tcp", 389), ("udp", 389)),
    "ldaps": (("tcp", 636),),
    "memcached": (("tcp", 11211), ("udp", 11211)),
    "mongodb": (("tcp", 27017), ("tcp", 27018), ("tcp", 27019)),
    "mysql": (("tcp", 3306), ("tcp", 4333)),
    "netbios": (("udp", 137), ("udp", 138), ("udp", 139)),
    "oracle": (("tcp", 1521), ("tcp", 2483)),
    "oracle_data_warehouse": (("tcp", 1522),),
    "postgresql": (("tcp", 5432),),
    "rdp": (("tcp", 3389),),
    "redis": (("tcp", 6379),),
    "rpc": (("tcp", 135),),
    "salt": (("tcp", 4505), ("tcp", 4506)),
    "smb": (("tcp", 445),),
    "smtp": (("tcp", 25),),
    "snmp": (("udp", 161),),
    "sql_server": (("tcp", 1433), ("udp", 1434)),
    "ssh": (("tcp", 22),),
    "telnet": (("tcp", 23),),
    "vnc_client": (("tcp", 5500),),
    "vnc_server": (("tcp", 5900),),
    "high_risk_ports": tuple(
        ("tcp", port)
        for port in (
            *(20, 21, 22, 23, 25, 110, 135, 143, 445, 1433, 1434, 3000, 3306, 3389, 4333, 5000),
            *(5432, 5500, 5601, 8080, 8088, 8888, 9200, 9300),
        )
    ),
}
# Azure's rules know two more.
AZURE_SERVICES = {
    **SERVICES,
    "http": (("tcp", 80),),
    "udp_amplifiers": tuple(("udp", port) for port in (53, 123, 161, 389, 1900)),
}


def exposed_services(
    opens: Iterable[tuple[str, int, int]], *, azure: bool = False
) -> frozenset[str]:
    """The services that these doors open; a door is (protocol or "-1", first, last port)."""
    doors = list(opens)
    return frozenset(
        name
        for name, ports in (AZURE_SERVICES if azure else SERVICES).items()
        if any(
            protocol in (own, "-1") and first <= port <= last
            for own, port in ports
            for protocol, first, last in doors
        )
    )
