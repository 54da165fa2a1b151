"""The recording a client sent, as it lies in the blob store. Not the decoded samples: those are Audio."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """`name` is the client's own file name: shown back to that client, never used as a path or logged.

    `duration_s`, `container` and `codec` are known once the media has been probed.
    """

    name: str
    size_bytes: int
    sha256: str
    duration_s: float | None = None
    container: str | None = None
    codec: str | None = None
