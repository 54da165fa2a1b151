"""A recording on its way to the service: a form, read from the file as it is sent, that can be sent again."""

import secrets
from collections.abc import AsyncIterator, Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread

CHUNK_BYTES = 2**17

OnUpload = Callable[[int, int], None]
"""Is told how many bytes went out, and of how many."""


@dataclass(frozen=True, slots=True)
class Form:
    """`size_bytes` is the file's when the form was made: one that grows meanwhile is sent up to there."""

    path: Path
    fields: Mapping[str, str]
    size_bytes: int
    on_upload: OnUpload | None = None
    boundary: str = field(default_factory=lambda: secrets.token_hex(16))

    def headers(self) -> dict[str, str]:
        length = len(self._head()) + self.size_bytes + len(self._tail())
        return {
            "Content-Type": f"multipart/form-data; boundary={self.boundary}",
            "Content-Length": str(length),
        }

    def chunks(self) -> Generator[bytes, None, None]:
        """From the beginning, each time."""
        yield self._head()
        with self.path.open("rb") as file:
            left = self.size_bytes
            while left and (chunk := file.read(min(CHUNK_BYTES, left))):
                left -= len(chunk)
                yield chunk
                # Asked for the next one, the network has taken this one.
                self._told(self.size_bytes - left)
        yield self._tail()

    async def chunks_async(self) -> AsyncIterator[bytes]:
        """The same; the disk is read beside the event loop."""
        chunks = self.chunks()
        try:
            while chunk := await anyio.to_thread.run_sync(next, chunks, b""):
                yield chunk
        finally:
            chunks.close()

    def _told(self, sent: int) -> None:
        if self.on_upload:
            self.on_upload(sent, self.size_bytes)

    def _head(self) -> bytes:
        parts = [self._part(f'name="{name}"') + value.encode() for name, value in self.fields.items()]
        parts.append(
            self._part(f'name="file"; filename="{_quoted(self.path.name)}"', "application/octet-stream")
        )
        return b"\r\n".join(parts)

    def _part(self, disposition: str, content_type: str = "") -> bytes:
        kind = f"\r\nContent-Type: {content_type}" if content_type else ""
        return f"--{self.boundary}\r\nContent-Disposition: form-data; {disposition}{kind}\r\n\r\n".encode()

    def _tail(self) -> bytes:
        return f"\r\n--{self.boundary}--\r\n".encode()


def _quoted(name: str) -> str:
    """As browsers do: https://html.spec.whatwg.org/#multipart-form-data."""
    escaped = name.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")
    return escaped.encode("utf-8", "replace").decode()
