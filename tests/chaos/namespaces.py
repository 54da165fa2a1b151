"""Several hosts on one machine: network namespaces, each with an address of its own, on one bridge.

The hosts share the disk. This process stands outside and has an address on the bridge too.
"""

import ctypes
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from ipaddress import IPv4Network, ip_network
from pathlib import Path

_NEW_NETWORK = 0x40000000
_NETWORKS = [IPv4Network(f"10.{second}.{third}.0/24") for second in (213, 87) for third in range(256)]
_OURS = 254


class NotPermitted(Exception):
    """Why there can be no namespaces here."""


class Cut(StrEnum):
    """What is cut between a host and a peer."""

    LINK = "link"
    """The host's cable is out: it reaches nobody, nobody reaches it."""

    MUTE = "mute"
    """What the host sends the peer is dropped; it may hear the peer."""

    DEAF = "deaf"
    """What the peer sends the host is dropped; the peer hears the host, and acts on it."""


@dataclass(frozen=True, slots=True)
class Host:
    """`link` is the bridge's end of its cable."""

    namespace: str
    address: str
    link: str

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Sockets this thread opens meanwhile, and processes it starts, are the host's.

        Connections kept from before stay where they were made, and so do those made in here.
        """
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        try:
            with open(Path("/run/netns", self.namespace)) as there:
                _enter(there.fileno())
            try:
                yield
            finally:
                _enter(home)
        finally:
            os.close(home)

    def cut(self, peer: "Host", how: Cut) -> None:
        """Until `heal` with the same arguments."""
        self._change(peer, how, "down", "add")

    def heal(self, peer: "Host", how: Cut) -> None:
        self._change(peer, how, "up", "del")

    def _change(self, peer: "Host", how: Cut, link: str, route: str) -> None:
        if how is Cut.LINK:
            _ip("link", "set", self.link, link)
        else:
            sender, receiver = (self, peer) if how is Cut.MUTE else (peer, self)
            _ip("-n", sender.namespace, "route", route, "blackhole", receiver.address)


@dataclass
class Network:
    """A bridge with hosts; `address` is this process's own."""

    tag: str
    subnet: IPv4Network
    _undo: ExitStack
    _hosts: list[Host] = field(default_factory=list)

    @property
    def address(self) -> str:
        return str(self.subnet[_OURS])

    @property
    def bridge(self) -> str:
        return f"an{self.tag}"

    def add(self, name: str) -> Host:
        number = len(self._hosts) + 1
        host = Host(f"ananse-{self.tag}-{name}", str(self.subnet[number]), f"an{self.tag}-{number}")
        _ip("netns", "add", host.namespace)
        self._undo.callback(_ip_if_there, "netns", "del", host.namespace)
        _ip("link", "add", host.link, "type", "veth", "peer", "name", "eth0", "netns", host.namespace)
        # Processes still inside would keep the namespace, and with it both ends of the cable.
        self._undo.callback(_ip_if_there, "link", "del", host.link)
        _ip("link", "set", host.link, "master", self.bridge, "up")
        inside = ("-n", host.namespace)
        _ip(*inside, "addr", "add", f"{host.address}/{self.subnet.prefixlen}", "dev", "eth0")
        _ip(*inside, "link", "set", "eth0", "up")
        _ip(*inside, "link", "set", "lo", "up")
        self._hosts.append(host)
        return host


@contextmanager
def network() -> Iterator[Network]:
    """Nothing of it is left afterwards, whatever happens. Raises NotPermitted."""
    _see_whether_permitted()
    with ExitStack() as undo:
        made = Network(secrets.token_hex(3), _free_subnet(), undo)
        try:
            _ip("link", "add", made.bridge, "type", "bridge")
            undo.callback(_ip_if_there, "link", "del", made.bridge)
            _ip("addr", "add", f"{made.address}/{made.subnet.prefixlen}", "dev", made.bridge)
            _ip("link", "set", made.bridge, "up")
            # The first one shows whether namespaces and cables can be made at all.
            made.add("probe")
        except subprocess.CalledProcessError as error:
            raise NotPermitted(f"network namespaces are not permitted: {error.stderr.strip()}") from error
        yield made


def _see_whether_permitted() -> None:
    if shutil.which("ip") is None:
        raise NotPermitted("there is no `ip` (iproute2) here")
    if os.geteuid() != 0:
        raise NotPermitted("only root may make network namespaces")


def _free_subnet() -> IPv4Network:
    routes = [line.split() for line in _ip("-4", "route", "show", "table", "all").splitlines()]
    words = [word for line in routes for word in line[:2] if word[:1].isdigit()]
    used = [ip_network(word, strict=False) for word in words]
    for subnet in _NETWORKS:
        if not any(subnet.overlaps(other) for other in used if isinstance(other, IPv4Network)):
            return subnet
    raise NotPermitted("all networks tried are in use")


def _enter(namespace: int) -> None:
    if ctypes.CDLL(None, use_errno=True).setns(namespace, _NEW_NETWORK) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _ip(*arguments: str) -> str:
    done = subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True, timeout=30)
    return done.stdout


def _ip_if_there(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=False, capture_output=True, timeout=30)
