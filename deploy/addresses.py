"""Where the service listens, and whether it can."""

import errno
import os
import socket
from dataclasses import dataclass
from ipaddress import ip_address

from deploy.errors import StartError

_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


@dataclass(frozen=True, slots=True)
class Address:
    host: str
    port: int

    @property
    def url(self) -> str:
        """As seen from this machine."""
        host = _ANYWHERE.get(self.host, self.host)
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"


def claim(host: str, port: int, setting: str) -> Address:
    """Makes sure that a server can listen there; port 0 becomes a free one.

    Raises StartError that names the port and the setting to change.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except socket.gaierror as error:
        raise StartError(f"{host} is no address of this machine; correct ANANSE_HOST") from error
    with socket.socket(family, kind, protocol) as probe:
        # As the servers do: a connection that lingers from the last run is no reason to refuse.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen(1)
        except OSError as error:
            raise StartError(_refusal(error, host, port, setting)) from error
        return Address(host, int(probe.getsockname()[1]))


def is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _refusal(error: OSError, host: str, port: int, setting: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return f"port {port} is taken; stop what listens there, or set {setting} to a free port"
    if error.errno == errno.EACCES:
        return f"port {port} may only be used by root; set {setting} to one above 1023"
    return (
        f"{host}:{port} cannot be bound ({os.strerror(error.errno or 0)}); correct ANANSE_HOST or {setting}"
    )
