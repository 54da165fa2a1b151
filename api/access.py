"""Which route takes which scopes: the whole of it in one table. A route that is not in it is an
administrator's; a test fails until somebody has thought about it."""

from shared.api_keys import Scope

Scopes = frozenset[Scope]

SUBMIT: Scopes = frozenset({Scope.SUBMIT})
READ: Scopes = frozenset({Scope.READ})
CANCEL: Scopes = frozenset({Scope.CANCEL})
ADMIN: Scopes = frozenset({Scope.ADMIN})
SUBMIT_AND_READ = SUBMIT | READ
OPEN: Scopes = frozenset()
"""Without a key: probes, and pages that say nothing of anybody."""

WATCHED = frozenset({"/metrics", "/internal/scale"})
"""Told without a key to machines of ANANSE_METRICS_ALLOW."""

TABLE: dict[tuple[str, str], Scopes] = {
    ("POST", "/v1/jobs"): SUBMIT,
    ("GET", "/v1/jobs"): READ,
    ("GET", "/v1/jobs/<job_id>"): READ,
    ("DELETE", "/v1/jobs/<job_id>"): CANCEL,
    ("POST", "/v1/jobs/<job_id>/cancel"): CANCEL,
    ("POST", "/v1/jobs/<job_id>/retry"): SUBMIT,
    ("GET", "/v1/jobs/<job_id>/transcript"): READ,
    ("POST", "/v1/jobs/<job_id>/transcript"): READ,
    ("GET", "/v1/jobs/<job_id>/audio"): READ,
    ("GET", "/v1/jobs/<job_id>/events"): READ,
    ("GET", "/v1/jobs/<job_id>/deliveries"): READ,
    ("POST", "/v1/jobs/<job_id>/deliveries/<number>/replay"): SUBMIT,
    ("GET", "/v1/models"): READ,
    ("POST", "/v1/audio/transcriptions"): SUBMIT_AND_READ,
    ("POST", "/v1/audio/translations"): SUBMIT_AND_READ,
    ("POST", "/transcribe"): SUBMIT_AND_READ,
    ("GET", "/metrics"): ADMIN,
    ("GET", "/internal/scale"): ADMIN,
    ("GET", "/livez"): OPEN,
    ("GET", "/readyz"): OPEN,
    ("GET", "/health"): OPEN,
    ("GET", "/"): OPEN,
    ("GET", "/page/<name>"): OPEN,
    ("GET", "/docs"): OPEN,
    ("GET", "/docs/start.js"): OPEN,
    ("GET", "/docs/assets/<path:name>"): OPEN,
    ("GET", "/openapi.json"): OPEN,
    ("GET", "/problems/<code>"): OPEN,
}


def needed(method: str, rule: str) -> Scopes:
    """By the pattern of the address. What Flask answers to OPTIONS is what a method is refused with, too."""
    if method == "OPTIONS":
        return OPEN
    return TABLE.get(("GET" if method == "HEAD" else method, rule), ADMIN)
