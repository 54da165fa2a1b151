"""The recording a client sent, as it lies in the blob store. Not the decoded samples: those are Audio."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Media:
    """`name` is the client's own file name: shown back to that client, never used as a path or logged.

    `duration_s`, `container` and `codec` are known once the media has been probed. One that is fetched has
    its `url`, as far as that may be shown; its size and hash are known once it has been.
    """

    name: str
    size_bytes: int
    sha256: str
    duration_s: float | None = None
    container: str | None = None
    codec: str | None = None
    url: str | None = None

    @property
    def is_here(self) -> bool:
        """False while it is still to be fetched."""
        return bool(self.sha256)
