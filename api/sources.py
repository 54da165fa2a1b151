"""Reads the address of a recording that is to be fetched. Where it may lead is judged by the worker that goes
there; here only what can be known before."""

from typing import Any

from flask import Request
from pydantic import ValidationError
from pydantic_core import from_json

from api.parts import Parts
from api.problems import of_validation, one_invalid
from api.schemas import UrlJobIn
from api.uploads import receive_small
from shared.errors import RequestError, UrlIngestUnavailable
from shared.source import Source

_OWN = ("audio_url", "audio_url_headers")


def read_source(parts: Parts, request: Request) -> tuple[Source, dict[str, Any]]:
    """The source, and the other fields of the JSON document, which are options.

    Raises UrlIngestUnavailable, InvalidOptions, RequestError.
    """
    if not parts.settings.fetch_slots:
        raise UrlIngestUnavailable("Send the recording itself, as multipart/form-data or as the body.")
    try:
        fields = from_json(receive_small(request, parts.settings.upload_idle_s))
    except ValueError:
        raise RequestError("The body is not JSON.") from None
    if not isinstance(fields, dict):
        raise RequestError("The body is not a JSON object.")
    try:
        asked = UrlJobIn.model_validate(fields)
    except ValidationError as error:
        raise of_validation(error) from error
    bucket = asked.audio_url.removeprefix("s3://").partition("/")[0]
    if asked.audio_url.startswith("s3:") and bucket not in parts.settings.fetch_buckets:
        raise one_invalid("audio_url", "names a bucket that this service does not read from")
    source = Source(asked.audio_url, asked.audio_url_headers)
    return source, {name: value for name, value in fields.items() if name not in _OWN}
