"""Who may do what in the service's Redis: a user for each role, with no more rights than the role needs.

Rights end at our own keys and channels. On those, whatever reads and writes values is allowed: a list of
single commands would keep nobody from anything there. What reaches beyond keys is named.
"""

import hashlib
from collections.abc import Mapping

_RECORDS = "~ananse:*"
_KEYS = "~ananse-keys:*"
_READS_KEYS = "%R~ananse-keys:*"
"""API keys have a place of their own, so that whoever breaks into the API makes none."""
_READS_COUNTS = "%R~ananse:used %R~ananse:usage:* %R~ananse:open:*"
_MESSAGES = "~ananse-celery:*"
_VALUES = "+@hash +@list +@set +@sortedset +@stream +@string +@transaction +del +exists +expire +pexpire"
_SCRIPTS = "+evalsha +script|load +script|exists"
_TALK = "+@connection +time"
_SENDS = "+publish &ananse-celery:*"
# Redis allows a pattern to be subscribed to only when it stands here letter by letter.
_TAKES_ORDERS = "+psubscribe +punsubscribe &ananse-celery:/0.celery.pidbox"
_SEES_EVENTS = "+psubscribe +punsubscribe &ananse-celery:/0.celeryev/*"
_NEVER = "-@dangerous -@admin"
_FIGURES = "+info"
"""Dangerous by Redis's own lists, as it tells of everybody; a script sees by it which Redis it is in."""

RULES: Mapping[str, tuple[str, ...]] = {
    "api": (_RECORDS, _READS_KEYS, _MESSAGES, _VALUES, _SCRIPTS, _TALK, _SENDS, _NEVER, _FIGURES),
    # Has lost keys again from their copies.
    "worker": (_RECORDS, _KEYS, _MESSAGES, _VALUES, _SCRIPTS, _TALK, _SENDS, _TAKES_ORDERS, _NEVER, _FIGURES),
    # Sees messages and events; no job, no transcript, no secret.
    "flower": (_MESSAGES, _VALUES, _SCRIPTS, _TALK, _SENDS, _SEES_EVENTS, _NEVER),
    # `ananse keys`, run by a person; sees no job.
    "keys": (_KEYS, _READS_COUNTS, _VALUES, _TALK, _NEVER),
    # Is it there, how full is it: for health checks and exporters.
    "monitor": ("+ping", _FIGURES),
    # A person inside the container; no service knows the password.
    "operator": ("~*", "&*", "+@all"),
}


def acl(passwords: Mapping[str, str]) -> str:
    """The ACL file. It holds hashes: whoever reads it cannot log in."""
    lines = ["user default off"]
    for name, rules in RULES.items():
        digest = hashlib.sha256(passwords[name].encode()).hexdigest()
        lines.append(f"user {name} on resetchannels #{digest} {' '.join(rules)}")
    return "\n".join([*lines, ""])
