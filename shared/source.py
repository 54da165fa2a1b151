"""Where a recording lies that the service is to fetch itself, and what it has to say there to get it."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote, urlsplit, urlunsplit

from pydantic import TypeAdapter

_MOST_NAME_CHARS = 255


@dataclass(frozen=True, slots=True)
class Source:
    """The query of the address may hold secrets, the headers are some: neither is shown or logged, and both
    are kept in the recording's place only until it is there."""

    url: str = field(repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def shown_url(self) -> str:
        """Without its query."""
        parts = urlsplit(self.url)
        return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))

    @property
    def name(self) -> str:
        """What a file from there would be called: only ever shown, never a path."""
        last = unquote(urlsplit(self.url).path, errors="replace").replace("\\", "/").rsplit("/", 1)[-1]
        clean = "".join(character for character in last if character.isprintable()).strip()
        return clean[:_MOST_NAME_CHARS] or "audio"

    @property
    def digest(self) -> str:
        return hashlib.sha256(self.to_json()).hexdigest()

    def to_json(self) -> bytes:
        return _source.dump_json(self)

    @classmethod
    def from_json(cls, text: bytes) -> "Source":
        return _source.validate_json(text)


_source: TypeAdapter[Source] = TypeAdapter(Source)
