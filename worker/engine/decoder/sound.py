"""Frames become samples at 16 kHz on the file's own clock, cut to the stretch asked for."""

from av.audio.frame import AudioFrame

from worker.engine.decoder.lanes import Lanes
from worker.engine.decoder.opening import check_numbers, too_long
from worker.engine.decoder.protocol import SAMPLE_BYTES, SAMPLE_RATE, Kind, Request, send

CHUNK_SAMPLES = SAMPLE_RATE
MIN_GAP_S = 0.2
MAX_GAP_S = 60.0
"""Holes in the timestamps between these bounds become silence, so that the text keeps the player's time."""

PARTIAL_S = 1.0
"""How much shorter than declared a recording may turn out before that is worth a warning."""


class Sound:
    """Frames become one or two lanes of samples at 16 kHz, cut to the stretch asked for and sent in chunks.

    Positions are samples from the file's own time 0. They are counted, not read from timestamps, except
    after a seek and where the timestamps leave a hole.
    """

    def __init__(self, request: Request, origin_s: float, *, was_sought: bool) -> None:
        self._request = request
        self._origin_s = origin_s
        self._first = round(request.start_s * SAMPLE_RATE)
        self._end = None if request.end_s is None else round(request.end_s * SAMPLE_RATE)
        self._max_samples = round(request.max_duration_s * SAMPLE_RATE)
        self._position: int | None = None if was_sought else 0
        self._lanes: Lanes | None = None
        self._pending = bytearray()
        self._jumps = 0
        self.sent = 0

    @property
    def is_complete(self) -> bool:
        return self._end is not None and self._position is not None and self._position >= self._end

    def place(self, frame: AudioFrame) -> None:
        check_numbers(frame.sample_rate, frame.layout.nb_channels)
        if self._lanes is None or not self._lanes.fits(frame):
            self._drain()
            self._lanes = Lanes(frame)
        self._follow_timestamp(frame, self._lanes)
        self._add(self._lanes.push(frame), self._lanes.width)

    def finish(self) -> None:
        self._drain()

    def warnings(self, declared_s: float | None) -> list[str]:
        found = []
        if self._jumps:
            found.append(f"timestamp_jumps: {self._jumps} ignored")
        if declared_s is not None:
            stop_s = declared_s if self._request.end_s is None else min(declared_s, self._request.end_s)
            expected_s = stop_s - self._request.start_s
            decoded_s = self.sent / SAMPLE_RATE
            if decoded_s < expected_s - PARTIAL_S:
                found.append(f"partial_decode: declared {expected_s:.1f} s, decoded {decoded_s:.1f} s")
        return found

    def _follow_timestamp(self, frame: AudioFrame, lanes: Lanes) -> None:
        if frame.time is None:
            self._position = self._position or 0
            return
        at = round((frame.time - self._origin_s) * SAMPLE_RATE)
        if self._position is None:
            self._position = max(at, 0)
            return
        gap_s = (at - self._position) / SAMPLE_RATE
        if gap_s < MIN_GAP_S:
            return
        if gap_s > MAX_GAP_S:
            self._jumps += 1
            self._origin_s += gap_s
            return
        self._add(lanes.drain(), lanes.width)
        self._add(bytes((at - self._position) * lanes.width), lanes.width)
        self._lanes = Lanes(frame)

    def _add(self, samples: bytes, width: int) -> None:
        """`width`: bytes of one sample over all lanes."""
        begin = self._position or 0
        count = len(samples) // width
        self._position = begin + count
        skip = max(self._first - begin, 0)
        stop = count if self._end is None else min(self._end - begin, count)
        self._pending += samples[skip * width : max(stop, skip) * width]
        if self.sent + len(self._pending) // width > self._max_samples:
            raise too_long(self._request)
        if len(self._pending) >= CHUNK_SAMPLES * width:
            self._send(width)

    def _send(self, width: int) -> None:
        kind = Kind.MONO if width == SAMPLE_BYTES else Kind.LANES
        chunk_bytes = CHUNK_SAMPLES * width
        for begin in range(0, len(self._pending), chunk_bytes):
            send(kind, self._pending[begin : begin + chunk_bytes])
        self.sent += len(self._pending) // width
        self._pending = bytearray()

    def _drain(self) -> None:
        if self._lanes is None:
            return
        self._add(self._lanes.drain(), self._lanes.width)
        if self._pending:
            self._send(self._lanes.width)
