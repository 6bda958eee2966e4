"""The services that nobody should reach from the internet, as a table: one row for both clouds.

The ports are the admin ports that other tools close; ``risk`` is why, in one or two sentences.
"""

from __future__ import annotations

from dataclasses import dataclass

from tasks.model import Severity
from tasks.rules.network import Door, port_text, tcp, udp

HIGH, MEDIUM = Severity.HIGH, Severity.MEDIUM


@dataclass(frozen=True, slots=True)
class Exposed:
    """One service: the word in its rules' ids, its name, its ports, and why it must be closed.

    ``aws`` and ``azure`` are what other tools and benchmarks call the same check there.
    """

    name: str
    service: str
    doors: tuple[Door, ...]
    severity: Severity
    risk: str
    aws: tuple[str, ...] = ()
    azure: tuple[str, ...] = ()

    @property
    def ports(self) -> str:
        return ", ".join(dict.fromkeys(port_text(door.ports) for door in self.doors))


_CIS_AWS = ("cis-aws-6.0:6.3", "cis-aws-6.0:6.4")


def _p(*names: str) -> tuple[str, ...]:
    return tuple(f"prowler:{name}" for name in names)


def _group(port: str) -> str:
    return f"prowler:ec2_securitygroup_allow_ingress_from_internet_to_tcp_port_{port}"


def _instance(service: str) -> str:
    return f"prowler:ec2_instance_port_{service}_exposed_to_internet"


def _c(name: str) -> str:
    return f"cloudsploit:{name}"


# fmt: off
EXPOSED: tuple[Exposed, ...] = (
    Exposed("ssh", "SSH", tcp(22), HIGH,
            "Password guessing against SSH never stops, and one weak account is a shell.",
            (_group("22"), _instance("ssh"), "securityhub:EC2.13", *_CIS_AWS, _c("openSSH")),
            (*_p("network_ssh_internet_access_restricted"), "cis-azure-5.0:7.2", _c("openSSH"))),
    Exposed("rdp", "RDP", tcp(3389), HIGH,
            "Open RDP is the most common way in for ransomware: guessed passwords, old bugs.",
            (_group("3389"), _instance("rdp"), "securityhub:EC2.14", *_CIS_AWS, _c("openRDP")),
            (*_p("network_rdp_internet_access_restricted"), "cis-azure-5.0:7.1", _c("openRDP"))),
    Exposed("cassandra_client", "Cassandra's client port", tcp(9042), HIGH,
            "Cassandra asks for no password unless told to, and this port speaks its query "
            "language.",
            (_instance("cassandra"), _c("openCassandraClient"))),
    Exposed("cassandra_internode", "Cassandra between its nodes", tcp(7000, 7001), HIGH,
            "Whoever speaks to the nodes' own port can join the ring and read what it replicates.",
            (_c("openCassandraInternode"),)),
    Exposed("cassandra_monitoring", "Cassandra's JMX", tcp(7199), HIGH,
            "JMX without authentication lets the caller run code inside the database's process.",
            (_group("cassandra_7199_9160_8888"), _c("openCassandraMonitoring"))),
    Exposed("cassandra_thrift", "Cassandra's Thrift port", tcp(9160), HIGH,
            "The old client protocol reads and writes every table, by default without a password.",
            (_c("openCassandraThrift"),)),
    Exposed("cifs", "CIFS over UDP", udp(445), HIGH,
            "File sharing is for a local network: worms spread over it, and names of users leak.",
            (_instance("cifs"), "cis-aws-6.0:6.1.2", _c("openCIFS")), (_c("openCIFS"),)),
    Exposed("dns", "DNS", (*tcp(53), *udp(53)), MEDIUM,
            "An open resolver answers forged questions and multiplies other people's attacks.",
            (_c("openDNS"),), (_c("openDNS"),)),
    Exposed("docker", "the Docker API", tcp(2375, 2376), HIGH,
            "Whoever reaches Docker's API starts a container as root of the host; miners "
            "look for it.",
            (_c("openDocker"),), (_c("openDocker"),)),
    Exposed("elasticsearch", "Elasticsearch", tcp(9200, 9300), HIGH,
            "Open indices are copied, wiped and held to ransom within hours of being found.",
            (_group("elasticsearch_kibana_9200_9300_5601"),
             _instance("elasticsearch_kibana"), _c("openElasticsearch"))),
    Exposed("ftp", "FTP", tcp(20, 21), HIGH,
            "FTP sends passwords and files in the clear, and anonymous access is often left on.",
            (_group("ftp_20_21"), _instance("ftp"), _c("openFTP")), (_c("openFTP"),)),
    Exposed("hadoop_name_node", "Hadoop's name node", tcp(8020), HIGH,
            "HDFS believes whatever user name it is told, so that this port reads and "
            "deletes files.",
            (_c("openHadoopNameNode"),), (_c("openHadoopNameNode"),)),
    Exposed("hadoop_name_node_web", "Hadoop's web pages", tcp(50070, 50470), HIGH,
            "The name node's pages list and serve every file of the cluster without a sign-in.",
            (_c("openHadoopNameNodeWebUI"),), (_c("openHadoopNameNodeWebUI"),)),
    Exposed("internal_web", "internal web servers", tcp(8080), MEDIUM,
            "Port 8080 is where consoles, proxies and builds listen that were never meant "
            "for guests.",
            (_c("openInternalWeb"),)),
    Exposed("kafka", "Kafka", tcp(9092), HIGH,
            "A broker without authentication hands every topic to whoever asks, and takes "
            "forgeries.",
            (_group("kafka_9092"), _instance("kafka"))),
    Exposed("kerberos", "Kerberos", tcp(88, 464, 749, 750), HIGH,
            "Tickets asked for from outside can be broken offline, and user names are confirmed.",
            (_instance("kerberos"),)),
    Exposed("kibana", "Kibana", tcp(5601), HIGH,
            "Kibana shows all that its Elasticsearch holds, and old versions run what they "
            "are sent.",
            (_c("openKibana"),), (_c("openKibana"),)),
    Exposed("ldap", "LDAP", (*tcp(389), *udp(389)), HIGH,
            "A directory names everybody who works here; over UDP it also multiplies attacks.",
            (_instance("ldap"), _c("openLDAP"))),
    Exposed("ldaps", "LDAP over TLS", tcp(636), HIGH,
            "Encryption hides the talk, not the directory: names and groups can still be "
            "asked for.",
            (_c("openLDAPS"),)),
    Exposed("memcached", "Memcached", (*tcp(11211), *udp(11211)), HIGH,
            "Memcached has no passwords: what it caches is read, and its UDP answers flood others.",
            (_group("memcached_11211"), _instance("memcached"), _c("openMemcached"))),
    Exposed("mongodb", "MongoDB", tcp(27017, 27018, 27019), HIGH,
            "Databases without a password are emptied by machine and replaced by a ransom note.",
            (_group("mongodb_27017_27018"), _instance("mongodb"), _c("openMongoDB"))),
    Exposed("mysql", "MySQL", tcp(3306, 4333), HIGH,
            "Scanners guess MySQL's passwords all day, and a dump of the data is one login away.",
            (_group("mysql_3306"), _instance("mysql"), _c("openMySQL")), (_c("openMySQL"),)),
    Exposed("netbios", "NetBIOS", udp(137, 138, 139), HIGH,
            "NetBIOS tells strangers the names of machines, shares and users, and trusts its "
            "network.",
            (_c("openNetBIOS"),), (_c("openNetBIOS"),)),
    Exposed("oracle", "Oracle Database", tcp(1521, 2483), HIGH,
            "The listener names its databases to anybody and has a long list of known holes.",
            (_group("oracle_1521_2483"), _instance("oracle"), _c("openOracle")),
            (_c("openOracle"),)),
    Exposed("oracle_data_warehouse", "Oracle's autonomous warehouse", tcp(1522), HIGH,
            "The warehouse holds the data of many systems at once; its port is for known clients.",
            (_c("openOracleAutoDataWarehouse"),), (_c("openOracleAutoDataWarehouse"),)),
    Exposed("postgresql", "PostgreSQL", tcp(5432), HIGH,
            "Guessed passwords of the postgres user become commands on the host through COPY.",
            (_group("postgres_5432"), _instance("postgresql"), _c("openPostgreSQL")),
            (_c("openPostgreSQL"),)),
    Exposed("redis", "Redis", tcp(6379), HIGH,
            "Redis trusts whoever connects, and can be made to write keys and jobs onto its host.",
            (_group("redis_6379"), _instance("redis"), _c("openRedis"))),
    Exposed("rpc", "Windows RPC", tcp(135), HIGH,
            "The endpoint mapper leads to services that worms have entered for twenty years.",
            (_c("openRPC"),), (_c("openRPC"),)),
    Exposed("salt", "Salt's master", tcp(4505, 4506), HIGH,
            "A Salt master runs commands on all its minions; a hole in it was used within days.",
            (_c("openSalt"),), (_c("openSalt"),)),
    Exposed("smb", "SMB", tcp(445), HIGH,
            "WannaCry came in over this port. File sharing has no business on the internet.",
            (_c("openSMBoTCP"),), (_c("openSMBoTCP"),)),
    Exposed("smtp", "SMTP", tcp(25), MEDIUM,
            "An open mail server is used for spam until its address is on every block list.",
            (_c("openSMTP"),), (_c("openSMTP"),)),
    Exposed("snmp", "SNMP", udp(161), HIGH,
            "The community string is mostly \"public\", and it tells, or sets, a device's "
            "whole state.",
            (_c("openSNMP"),)),
    Exposed("sql_server", "SQL Server", (*tcp(1433), *udp(1434)), HIGH,
            "Password guessing against sa never stops, and xp_cmdshell makes a shell of a login.",
            (_group("sql_server_1433_1434"), _instance("sqlserver"), _c("openSQLServer")),
            (_c("openSQLServer"),)),
    Exposed("telnet", "Telnet", tcp(23), HIGH,
            "Telnet sends passwords in the clear, and botnets try the factory ones on every "
            "address.",
            (_group("telnet_23"), _instance("telnet"), _c("openTelnet")), (_c("openTelnet"),)),
    Exposed("vnc_client", "VNC's listening viewer", tcp(5500), HIGH,
            "A viewer that listens shows, and can be handed, a desktop by whoever connects.",
            (_c("openVNCClient"),), (_c("openVNCClient"),)),
    Exposed("vnc_server", "VNC", tcp(5900), HIGH,
            "A desktop behind eight characters of password, or none: scanners photograph them.",
            (_c("openVNCServer"),), (_c("openVNCServer"),)),
)
# fmt: on

# What AWS and others list as high risk beside the ports above, each closed by one rule together.
HIGH_RISK = tcp(
    *(20, 21, 22, 23, 25, 110, 135, 143, 445, 1433, 1434, 3000, 3306, 3389, 4333, 5000, 5432),
    *(5500, 5601, 8080, 8088, 8888, 9200, 9300),
)
# What answers a forged sender with more than it was sent: DNS, NTP, SNMP, LDAP, SSDP.
AMPLIFIERS = udp(53, 123, 161, 389, 1900)
