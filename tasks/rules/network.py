"""Networks and ports as sets: what is the internet, what opens a door, what is left of a range."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from itertools import pairwise
from typing import Any

from tasks.errors import BadAnswer
from tasks.model import Input

Network = IPv4Network | IPv6Network
PortRange = tuple[int, int]

ANYWHERE: tuple[Network, Network] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))

# Addresses nobody on the internet can come from (IANA's special-purpose registries), so that
# opening to all the others is opening to the internet.
_NOT_PUBLIC: dict[int, tuple[Network, ...]] = {
    4: tuple(
        IPv4Network(text)
        for text in (
            "0.0.0.0/8",
            "10.0.0.0/8",
            "100.64.0.0/10",
            "127.0.0.0/8",
            "169.254.0.0/16",
            "172.16.0.0/12",
            "192.0.0.0/24",
            "192.0.2.0/24",
            "192.168.0.0/16",
            "198.18.0.0/15",
            "198.51.100.0/24",
            "203.0.113.0/24",
            "224.0.0.0/3",
        )
    ),
    # All of IPv6's public addresses lie in 2000::/3; this is everything else.
    6: tuple(IPv6Network(text) for text in ("::/3", "4000::/2", "8000::/1")),
}


@dataclass(frozen=True, slots=True)
class Door:
    """What must not be open to the internet: every port from ``first`` to ``last`` at once."""

    protocol: str
    first: int
    last: int

    @property
    def ports(self) -> PortRange:
        return (self.first, self.last)

    def __str__(self) -> str:
        return f"{self.protocol} {port_text(self.ports)}"


ALL_PORTS = (Door("tcp", 1, 65535), Door("udp", 1, 65535))

ALLOWED_CIDRS = Input(
    name="allowed_cidrs",
    kind="cidrs",
    label="Networks that may still connect",
)


def tcp(*ports: int) -> tuple[Door, ...]:
    return tuple(Door("tcp", port, port) for port in ports)


def udp(*ports: int) -> tuple[Door, ...]:
    return tuple(Door("udp", port, port) for port in ports)


# --- networks ---------------------------------------------------------------------------------


@lru_cache(maxsize=8192)
def network(text: str) -> Network:
    """The network that ``text`` names; an address is a network of one. ValueError when neither."""
    return ip_network(text, strict=False)


def inside(inner: Network, outer: Network) -> bool:
    """Whether every address of ``inner`` is one of ``outer``."""
    if isinstance(inner, IPv4Network):
        return isinstance(outer, IPv4Network) and inner.subnet_of(outer)
    return isinstance(outer, IPv6Network) and inner.subnet_of(outer)


def subtract(networks: Iterable[Network], others: Iterable[Network]) -> list[Network]:
    """The addresses of ``networks`` that are in none of ``others``."""
    left = list(networks)
    for other in others:
        left = [piece for whole in left for piece in _without(whole, other)]
    return left


def _without(whole: Network, other: Network) -> list[Network]:
    if inside(whole, other):
        return []
    if isinstance(whole, IPv4Network):
        if isinstance(other, IPv4Network) and other.subnet_of(whole):
            return list(whole.address_exclude(other))
    elif isinstance(other, IPv6Network) and other.subnet_of(whole):
        return list(whole.address_exclude(other))
    return [whole]


_PUBLIC: dict[int, tuple[Network, ...]] = {
    whole.version: tuple(subtract([whole], _NOT_PUBLIC[whole.version])) for whole in ANYWHERE
}
_PUBLIC_SIZE: dict[int, int] = {
    version: sum(part.num_addresses for part in parts) for version, parts in _PUBLIC.items()
}


def public(networks: Iterable[Network]) -> list[Network]:
    """The part of ``networks`` that somebody on the internet can connect from."""
    return [piece for one in networks for piece in _public_part(one)]


@lru_cache(maxsize=8192)
def _public_part(one: Network) -> tuple[Network, ...]:
    return tuple(subtract([one], _NOT_PUBLIC[one.version]))


def is_internet(networks: Iterable[Network]) -> bool:
    """Whether every public address of IPv4, or every one of IPv6, is in ``networks``.

    So 0.0.0.0/0 is, ::/0 is, 2000::/3 is, and 0.0.0.0/1 with 128.0.0.0/1 is too.
    """
    known = set(networks)
    return any(
        _fills([one for one in known if one.version == version], version) for version in (4, 6)
    )


def _fills(networks: Sequence[Network], version: int) -> bool:
    if any(one.prefixlen == 0 for one in networks):
        return True
    if sum(one.num_addresses for one in networks) < _PUBLIC_SIZE[version]:
        return False  # the usual case, told without any set arithmetic
    return not subtract(_PUBLIC[version], networks)


def exposing(networks: Iterable[Network]) -> frozenset[Network]:
    """The networks that make ``networks`` the internet; empty when it is not.

    Only the outermost count: 10.0.0.0/8 beside 0.0.0.0/0 is a legitimate source and not one of
    them, nor is a private network beside two halves of the internet. What is left may be the
    internet again (two halves below a whole): ask again.
    """
    known = set(networks)
    guilty: set[Network] = set()
    for version in (4, 6):
        family = [one for one in known if one.version == version]
        if _fills(family, version):
            guilty |= {one for one in family if public([one]) and not _has_outer(one, family)}
    return frozenset(guilty)


def _has_outer(one: Network, others: Iterable[Network]) -> bool:
    return any(other != one and inside(one, other) for other in others)


def allowed_networks(values: Any, field: str = ALLOWED_CIDRS.name) -> tuple[Network, ...]:
    """The networks an approver allows, each once, in the order given.

    ``values`` are a fix's values: ``{field: ("10.0.0.0/8", ...)}``; none or nothing allows none.
    Raises BadAnswer, which names the field and never repeats the answer.
    """
    given = values.get(field) or ()
    if isinstance(given, str) or not all(isinstance(one, str) for one in given):
        raise BadAnswer(field, "is not a list of networks.", "Write them like 10.0.0.0/8.")
    try:
        parsed = tuple(dict.fromkeys(ip_network(one.strip()) for one in given))
    except ValueError:
        raise BadAnswer(
            field,
            "holds something that is not a network.",
            "Write networks like 10.0.0.0/8 or 2001:db8::/32, without host bits.",
        ) from None
    refuse_internet(parsed, field)
    return parsed


def refuse_internet(networks: Iterable[Network], field: str = ALLOWED_CIDRS.name) -> None:
    """BadAnswer where ``networks`` together are the internet: that would leave the door open."""
    if is_internet(networks):
        raise BadAnswer(
            field, "would leave the port open to the whole internet.", "Give smaller networks."
        )


# --- ports ------------------------------------------------------------------------------------


def port_text(ports: PortRange) -> str:
    """A range as people and Azure write it: "22" or "20-30"."""
    first, last = ports
    return str(first) if first == last else f"{first}-{last}"


def ports_text(ranges: Iterable[PortRange]) -> str:
    return ", ".join(port_text(one) for one in ranges)


def overlap(one: PortRange, other: PortRange) -> PortRange | None:
    """The ports in both ranges."""
    first, last = max(one[0], other[0]), min(one[1], other[1])
    return (first, last) if first <= last else None


def minus(ranges: Iterable[PortRange], closed: PortRange) -> list[PortRange]:
    """The ports of ``ranges`` without those of ``closed``, range by range."""
    left: list[PortRange] = []
    for first, last in ranges:
        below, above = (first, min(last, closed[0] - 1)), (max(first, closed[1] + 1), last)
        left += [piece for piece in (below, above) if piece[0] <= piece[1]]
    return left


def covers(ranges: Iterable[PortRange], wanted: Iterable[PortRange]) -> bool:
    """Whether ``ranges`` together hold every port of ``wanted``."""
    left = list(wanted)
    for one in ranges:
        left = minus(left, one)
    return not left


def segments(ranges: Iterable[PortRange], within: PortRange) -> list[PortRange]:
    """``within`` cut wherever one of ``ranges`` begins or ends: no range ends inside a segment."""
    cuts = {within[0], within[1] + 1}
    for one in ranges:
        if shared := overlap(one, within):
            cuts |= {shared[0], shared[1] + 1}
    edges = sorted(cuts)
    return [(first, after - 1) for first, after in pairwise(edges)]
