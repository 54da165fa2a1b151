"""Who is asking, and may they. Before any view runs; which route takes what is in `access.py`."""

import math
import time
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import cast

from flask import Flask, Request, Response, request

from api.access import WATCHED, Scopes, needed
from api.requests import visit
from shared import log
from shared.api_keys import NO_LIMITS, Limits, Presented, Scope, Verdict, read
from shared.errors import (
    Forbidden,
    LimitReached,
    TooManyJobs,
    TooManyWrongKeys,
    TooMuchAudio,
    TooMuchStored,
    Unauthorized,
)
from shared.key_ring import Admission, Count, KeyRing
from shared.settings import Settings

DEFAULT_TENANT = "default"

_CALLER = "ananse.caller"
_LOOK_S = 5.0
_PROXIED = ("Forwarded", "Via", "X-Forwarded-For", "X-Real-Ip")
_NO = {
    Verdict.UNKNOWN: "The API key is not known here.",
    Verdict.EXPIRED: "The API key has expired.",
    Verdict.REVOKED: "The API key was revoked.",
}


@dataclass(frozen=True, slots=True)
class Caller:
    """`key_id` is empty where no key is asked for; then nothing is counted."""

    tenant: str = DEFAULT_TENANT
    key_id: str = ""
    scopes: Scopes = frozenset(Scope)
    limits: Limits = NO_LIMITS
    count: Count | None = None

    def may(self, wanted: Scopes) -> bool:
        return Scope.ADMIN in self.scopes or wanted <= self.scopes


ANYBODY = Caller()


class Gate:
    """Open while no key was ever made and only trusted machines reach it; closed otherwise, and for good.

    A Redis that has come back empty is no reason to open: copies of the keys lie in the blob store.
    """

    def __init__(self, settings: Settings, ring: KeyRing) -> None:
        self._settings = settings
        self._ring = ring
        self._were_keys = False
        self._looked_at = -math.inf

    def admit(self, request: Request) -> Caller:
        """Raises Unauthorized, TooManyWrongKeys."""
        presented = _presented(request)
        admission = self._ring.admit(presented, self._settings.key_requests_per_min)
        if self._is_from_friends(request) and not self._were_keys_made(admission):
            return ANYBODY
        if presented is None:
            if "Authorization" in request.headers:
                self._count_wrong(request)
            raise Unauthorized(_how(request))
        if admission.verdict is Verdict.UNKNOWN:
            self._count_wrong(request)
        return self._owner(admission)

    def _count_wrong(self, request: Request) -> None:
        """Raises TooManyWrongKeys. Only who sends wrong ones hears of it: behind the address may be a
        proxy, and behind that everybody else."""
        address = _network_of(request)
        log.add(client=address)
        per_min = self._settings.wrong_keys_per_min
        wait_s = self._ring.count_wrong(address, per_min) if per_min else 0.0
        if wait_s:
            raise TooManyWrongKeys(
                "Too many wrong API keys came from this address, and this is another one.",
                retry_after_s=wait_s,
            )

    def lets_watch(self, request: Request) -> bool:
        """Whether a machine of ours asks for figures, and not somebody behind a proxy of ours."""
        if _is_proxied(request):
            return False
        address = _address_of(request)
        return address is not None and any(address in network for network in self._settings.metrics_allow)

    def _is_from_friends(self, request: Request) -> bool:
        """A proxy on this machine brings the whole world to loopback."""
        return self._settings.trusted_network or (self._settings.is_private and not _is_proxied(request))

    def _owner(self, admission: Admission) -> Caller:
        key = admission.key
        if key is None or admission.verdict is not Verdict.VALID:
            raise Unauthorized(_NO[admission.verdict])
        return Caller(key.tenant, key.id, key.scopes, key.limits_of(self._settings), admission.count)

    def _were_keys_made(self, admission: Admission) -> bool:
        """As the copies tell where Redis cannot, looked at now and then: nobody makes keys every second."""
        if self._were_keys or admission.are_there_keys is not None:
            self._were_keys = self._were_keys or bool(admission.are_there_keys)
        elif time.monotonic() - self._looked_at >= _LOOK_S:
            self._were_keys = self._ring.are_there_copies()
            self._looked_at = time.monotonic()
        return self._were_keys


def install(app: Flask, gate: Gate) -> None:
    app.before_request(partial(_let_in, gate))
    app.after_request(_tell)


def caller() -> Caller:
    """Of the request at hand."""
    return cast(Caller, request.environ.get(_CALLER, ANYBODY))


def identify(request: Request) -> str:
    """The tenant whose jobs this request may see."""
    return caller().tenant


def address_to_bind(settings: Settings) -> str:
    """`host:port` for gunicorn."""
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    return f"{host}:{settings.port}"


def _let_in(gate: Gate) -> None:
    if request.url_rule is None:
        # Nothing is there to be kept from anybody.
        return
    wanted = needed(request.method, request.url_rule.rule)
    if not wanted or (request.url_rule.rule in WATCHED and gate.lets_watch(request)):
        return
    one = request.environ[_CALLER] = gate.admit(request)
    log.add(key_id=one.key_id)
    if one.count and one.count.is_refused:
        raise LimitReached(retry_after_s=one.count.wait_s)
    if not one.may(wanted):
        raise Forbidden(f"This takes the scope {_listed(wanted)}, which the API key does not have.")


def _tell(answer: Response) -> Response:
    """What a client is told of keys and limits beside the answer itself."""
    code, one = visit().code, caller()
    if code == Unauthorized.code:
        invalid = ', error="invalid_token"' if "Authorization" in request.headers else ""
        answer.headers["WWW-Authenticate"] = f'Bearer realm="ananse"{invalid}'
    elif code == Forbidden.code and request.url_rule is not None:
        scopes = " ".join(sorted(needed(request.method, request.url_rule.rule)))
        answer.headers["WWW-Authenticate"] = (
            f'Bearer realm="ananse", error="insufficient_scope", scope="{scopes}"'
        )
    policies, states = _limits_told(one, code)
    if policies:
        answer.headers["RateLimit-Policy"] = ", ".join(policies)
        answer.headers["RateLimit"] = ", ".join(states)
    return answer


def _limits_told(one: Caller, code: str) -> tuple[list[str], list[str]]:
    """As draft-ietf-httpapi-ratelimit-headers-10 writes them: what is allowed, and what is left of it."""
    policies, states = [], []
    if one.count:
        left, whole_s = max(0, one.count.left), math.ceil(one.count.whole_s)
        policies.append(f'"requests";q={one.limits.requests_per_min};w=60')
        states.append(f'"requests";r={left};t={whole_s}')
    reached = {
        TooManyJobs.code: ("jobs", one.limits.jobs),
        TooMuchAudio.code: ("audio-seconds", math.floor(one.limits.audio_s)),
        TooMuchStored.code: ("stored-bytes", one.limits.stored_bytes),
    }.get(code)
    if reached:
        policies.append(f'"{reached[0]}";q={reached[1]}')
        states.append(f'"{reached[0]}";r=0')
    return policies, states


def _is_proxied(request: Request) -> bool:
    return any(name in request.headers for name in _PROXIED)


def _address_of(request: Request) -> IPv4Address | IPv6Address | None:
    """None for what comes through a unix socket."""
    try:
        address = ip_address(request.remote_addr or "")
    except ValueError:
        return None
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address


def _network_of(request: Request) -> str:
    """Whom an address belongs to, as far as it tells: of IPv6, everybody is given a /64 at least."""
    address = _address_of(request)
    if isinstance(address, IPv6Address):
        return str(ip_network((address, 64), strict=False))
    return str(address or "local")


def _presented(request: Request) -> Presented | None:
    given = request.authorization
    return read(given.token) if given and given.type == "bearer" and given.token else None


def _how(request: Request) -> str:
    if "Authorization" not in request.headers:
        return "Send an API key: `Authorization: Bearer ananse_…`."
    return "That is no API key of this service; one is sent as `Authorization: Bearer ananse_…`."


def _listed(scopes: Iterable[Scope]) -> str:
    return " and ".join(sorted(scopes))
