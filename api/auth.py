"""Who is asking. There are no API keys yet, so everybody is the one tenant; views ask here all the same."""

from flask import Request

from shared.log import get_logger
from shared.settings import Settings

DEFAULT_TENANT = "default"

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def identify(request: Request) -> str:
    """The tenant whose jobs this request may see."""
    return DEFAULT_TENANT


def address_to_bind(settings: Settings) -> str:
    """`host:port` for gunicorn. While there are no keys, an address others can reach is open: say so."""
    if settings.host not in _LOOPBACK:
        get_logger().warning("api_open_to_network_without_keys", host=settings.host)
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"
