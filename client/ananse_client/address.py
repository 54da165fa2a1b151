"""Where the service is and who asks: from arguments, else from the environment."""

import os
from dataclasses import dataclass
from ipaddress import ip_address
from urllib.parse import urlsplit

import httpx

from ananse_client.errors import Unreachable
from ananse_client.flows import NotConnected

URL_VARIABLE = "ANANSE_URL"
KEY_VARIABLE = "ANANSE_API_KEY"
DEFAULT_URL = "http://127.0.0.1:8000"

_NEVER_OUT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.UnsupportedProtocol)


@dataclass(frozen=True, slots=True)
class Address:
    """`url` ends without a slash."""

    url: str
    headers: dict[str, str]

    @classmethod
    def of(cls, url: str | None, api_key: str | None) -> "Address":
        """Raises ValueError for what is no http or https URL."""
        found = (url or os.environ.get(URL_VARIABLE) or DEFAULT_URL).rstrip("/")
        parts = urlsplit(found)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{found} is not the URL of a service; one begins with http:// or https://")
        key = api_key or os.environ.get(KEY_VARIABLE)
        return cls(found, {"Authorization": f"Bearer {key}"} if key else {})

    @property
    def is_elsewhere(self) -> bool:
        """Proxies of the environment are for servers elsewhere."""
        host = urlsplit(self.url).hostname or ""
        try:
            return not ip_address(host).is_loopback
        except ValueError:
            return host != "localhost"


def unreachable(address: Address, error: httpx.HTTPError) -> Unreachable:
    """Ours for httpx's."""
    reason = str(error) or type(error).__name__
    kind = NotConnected if isinstance(error, _NEVER_OUT) else Unreachable
    return kind(f"{address.url} does not answer ({reason})")
