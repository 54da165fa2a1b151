"""Which addresses of the network strangers may be reached at. Numbers only: names are looked up elsewhere."""

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

GLOBAL_UNICAST_V6 = IPv6Network("2000::/3")
"""All of IPv6 that is in use between networks. Outside lie loopback, link-local, site-local (fec0::/10),
IPv4-compatible (::/96), NAT64 (64:ff9b::/96, 64:ff9b:1::/48), segment routing (5f00::/16) and multicast."""

REFUSED: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "192.0.0.0/24",  # protocol assignments, a few of which Python calls global
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo (2001::/32) and other assignments, some global to newer Pythons
        "2002::/16",  # 6to4: an IPv4 address in disguise
        "3fff::/20",  # documentation
    )
)
"""Global by Python's book, but no place for a receiver."""


def unwrapped(address: Address) -> Address:
    """The IPv4 address inside an IPv4-mapped one, else the address itself."""
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def is_public(address: Address) -> bool:
    """Whether strangers may be reached there. `address` is unwrapped."""
    if isinstance(address, IPv6Address) and address not in GLOBAL_UNICAST_V6:
        return False
    return address.is_global and not address.is_multicast and not is_in(address, REFUSED)


def is_in(address: Address, networks: Iterable[Network]) -> bool:
    return any(address.version == network.version and address in network for network in networks)
