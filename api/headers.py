"""The headers that every answer carries, for browsers: nothing of ours is run, framed, guessed at or read by
another site's page. Pages that need more say so by a policy of their own."""

from werkzeug.datastructures import Headers

_POLICY = "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

ALWAYS = {
    "Content-Security-Policy": _POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    # What older browsers know of `frame-ancestors`.
    "X-Frame-Options": "DENY",
}


def secure(headers: Headers, status: int) -> None:
    """Adds what is missing. Answers are their caller's own: shared caches keep none, and nobody a failure."""
    for name, value in ALWAYS.items():
        headers.setdefault(name, value)
    headers.setdefault("Cache-Control", "no-store" if status >= 400 else "private, no-cache")
