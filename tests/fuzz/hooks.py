"""What schemathesis is told about our service, loaded by its command line (SCHEMATHESIS_HOOKS).

Its positive cases follow the OpenAPI document to the letter; what no schema can say (that one number is more
than another, which models there are) is put right here. Its negative cases stay as they are.
"""

from collections import deque
from itertools import count
from typing import Any

import schemathesis

from tests.support.secrets import noise

NOBODY = "http://127.0.0.1:9/"
"""Where nothing listens, and where the guarded client does not go: no test leaves this machine."""

_ADDRESSES = ("webhook_url", "audio_url")
_HEADER = ("webhook_auth_header_name", "webhook_auth_header_value")
_FILES = ("file", "audio_file")
_SOUND = noise(1.0)
_EVERY = 3
_uploads = count()
_jobs: deque[str] = deque(maxlen=64)


@schemathesis.hook
def before_call(_context: Any, case: Any, _more: dict[str, Any]) -> None:
    for fields in (case.query, case.body):
        if isinstance(fields, dict):
            _stay_here(fields)
    meta = case.meta
    if meta is None or not meta.generation.mode.is_positive:
        return
    if _is_form(case) or isinstance(case.body, dict):
        # An option has one place: the query is for bodies that are the recording itself.
        case.query = {}
    for fields in (case.query, case.body):
        if isinstance(fields, dict):
            _agree(fields)
    _send_sound(case)
    if _jobs and meta.phase.name.value != "stateful" and "job_id" in (case.path_parameters or {}):
        _jobs.rotate()
        case.path_parameters["job_id"] = _jobs[0]


@schemathesis.hook
def after_call(_context: Any, case: Any, response: Any) -> None:
    if response.status_code == 202 and (job_id := response.json().get("id")):
        _jobs.append(job_id)


def _stay_here(fields: dict[str, Any]) -> None:
    for name in _ADDRESSES:
        if isinstance(fields.get(name), str) and fields[name].lower().startswith("http"):
            fields[name] = NOBODY


def _agree(options: dict[str, Any]) -> None:
    """As this service can do it: the model spells English, and gives no words' times."""
    for name in ("model", "language", "word_timestamps", "end_s", "retention_s"):
        options.pop(name, None)
    if "audio_url" in options:
        options["audio_url"] = NOBODY
    needed = ("webhook_url", *_HEADER)
    if not all(options.get(name) for name in needed):
        for name in _HEADER:
            options.pop(name, None)


def _send_sound(case: Any) -> None:
    """Now and then a recording that can be transcribed."""
    if case.body is None or next(_uploads) % _EVERY:
        return
    if isinstance(case.body, bytes):
        case.body = _SOUND
    elif isinstance(case.body, dict):
        for name in _FILES:
            if name in case.body:
                case.body[name] = _SOUND


def _is_form(case: Any) -> bool:
    return bool(case.media_type) and case.media_type.startswith("multipart/")
