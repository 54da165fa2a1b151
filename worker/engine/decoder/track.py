"""The audio track as a stream of frames."""

from collections.abc import Iterator

import av
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

MICROSECONDS = 1_000_000


class Track:
    """The audio track as a stream of frames. Damaged packets are counted and skipped."""

    def __init__(self, container: InputContainer, stream: AudioStream) -> None:
        self._container = container
        self._stream = stream
        self._damaged_packets = 0
        self._broke_off = False
        self.origin_s = (container.start_time or 0) / MICROSECONDS

    @property
    def is_damaged(self) -> bool:
        return self._broke_off or self._damaged_packets > 0

    def frames(self) -> Iterator[AudioFrame]:
        packets = self._container.demux(self._stream)
        while True:
            try:
                packet = next(packets, None)
                if packet is None:
                    return
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self._broke_off = True
                return
            try:
                frames = packet.decode()
            except MemoryError:
                raise
            except av.error.FFmpegError:
                self._damaged_packets += 1
                continue
            yield from frames

    def warnings(self) -> list[str]:
        if self._damaged_packets:
            return [f"damaged_packets: {self._damaged_packets} skipped"]
        return []
