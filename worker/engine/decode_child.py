"""The decoder's child process: opens one file with one demuxer and writes its sound to standard output.

Run by path with `python -I`, so it imports the standard library, av and numpy only, and those two after it
has set its own bounds. `audio.py` starts it and reads what it writes.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from av.audio.frame import AudioFrame
    from av.audio.stream import AudioStream
    from av.container import InputContainer
    from av.filter.context import FilterContext

SAMPLE_RATE = 16_000
SAMPLE_BYTES = 2
MICROSECONDS = 1_000_000

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 384_000
MAX_CHANNELS = 32

OPEN_FILES = 32
WRITABLE_BYTES = 64 * 1024
"""What the child may write to a file: room for the traceback on its standard error."""

MAX_STREAMS = 64
CHUNK_SAMPLES = SAMPLE_RATE
SEEK_MARGIN_S = 1.0
MIN_GAP_S = 0.2
MAX_GAP_S = 60.0
"""Holes in the timestamps between these bounds become silence, so that the text keeps the player's time."""

CANCELLED = 10.0
"""How many times as strong as the sum of two channels their difference must be for the sum to be given up."""

PARTIAL_S = 1.0
"""How much shorter than declared a recording may turn out before that is worth a warning."""

SEEKS_EXACTLY = frozenset({"aiff", "asf", "caf", "flac", "matroska", "mov", "ogg", "w64", "wav"})
"""Demuxers whose timestamps still tell the truth after a seek; with the others we decode up to the place."""

AUDIO_DECODERS = (
    "aac,aac_latm,ac3,adpcm_ima_qt,adpcm_ima_wav,adpcm_ms,alac,amrnb,amrwb,dca,eac3,flac,gsm,gsm_ms,"
    "libopencore_amrnb,libopencore_amrwb,libopus,libspeex,libvorbis,mp1,mp1float,mp2,mp2float,mp3,mp3float,"
    "opus,pcm_alaw,pcm_f32be,pcm_f32le,pcm_f64be,pcm_f64le,pcm_mulaw,pcm_s16be,pcm_s16le,pcm_s24be,pcm_s24le,"
    "pcm_s32be,pcm_s32le,pcm_s64be,pcm_s64le,pcm_s8,pcm_u8,speex,vorbis,"
    "wmalossless,wmapro,wmav1,wmav2,wmavoice"
)
"""No picture, subtitle or rarely used decoder ever sees the client's bytes, not even to probe them."""


class Kind(StrEnum):
    """What a message from the child holds. A stream of them is PROBE, SOUND…, END; or it stops at FAILURE."""

    PROBE = "P"
    SOUND = "S"
    END = "E"
    FAILURE = "F"


MESSAGE = struct.Struct(">cI")
"""Kind and payload size in bytes. Sound is mono s16 in native order; the other payloads are JSON."""


@dataclass(frozen=True, slots=True)
class Request:
    """`fd` is the file to decode, open for reading and seekable. `duration_is_exact`: the duration that libav
    tells is no guess. `promised_s`: what the file's header says beyond that."""

    fd: int
    demuxer: str
    duration_is_exact: bool
    promised_s: float | None
    parent_pid: int
    memory_bytes: int
    cpu_s: int
    max_duration_s: float
    start_s: float
    end_s: float | None


class Refusal(Exception):
    """The file cannot be decoded; `code` is one of those in shared/errors.py."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def main() -> None:
    request = Request(**json.loads(sys.argv[1]))
    die_with(request.parent_pid)
    # The folder we stand in was made for us. Once it is gone no file can be found or made in it, and none
    # is left over should the whole worker be killed.
    os.rmdir(os.getcwd())
    set_bounds(request)
    try:
        decode(request)
    except MemoryError:
        send_failure(Refusal("out_of_memory", "Decoding the file takes more memory than it may have."))
    except ImportError as error:
        # The dynamic loader says so when libav itself does not fit into the address space.
        if "failed to map" not in str(error) and "allocate memory" not in str(error):
            raise
        send_failure(Refusal("out_of_memory", "The decoder does not fit into the memory it may have."))
    except Refusal as refusal:
        send_failure(refusal)


def decode(request: Request) -> None:
    container, stream = open_audio(request)
    declared_s = check(request, container, stream)
    send_probe(request, stream, declared_s)
    track = Track(container, stream)
    sound = Sound(request, track.origin_s, was_sought=seek(request, container, track.origin_s))
    for frame in track.frames():
        sound.place(frame)
        if sound.is_complete:
            break
    sound.finish()
    if not sound.sent:
        raise nothing_decoded(request, track, declared_s)
    exact_s = declared_s if request.duration_is_exact else None
    warnings = [*track.warnings(), *sound.warnings(request.promised_s or exact_s)]
    send_json(Kind.END, {"warnings": warnings})


def die_with(parent_pid: int) -> None:
    """Linux kills this process when the thread that started it ends, however it ends."""
    pr_set_pdeathsig = 1
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(pr_set_pdeathsig, signal.SIGKILL)
    if os.getppid() != parent_pid:
        sys.exit("the parent died before the child was ready")


def set_bounds(request: Request) -> None:
    bounds = {
        resource.RLIMIT_AS: request.memory_bytes,
        resource.RLIMIT_NOFILE: OPEN_FILES,
        resource.RLIMIT_FSIZE: WRITABLE_BYTES,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_NPROC: 0,
    }
    for bound, value in bounds.items():
        _, hard = resource.getrlimit(bound)
        allowed = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(bound, (allowed, allowed))
    # The soft bound's signal tells the parent why; with both bounds equal it would be a plain SIGKILL.
    resource.setrlimit(resource.RLIMIT_CPU, (request.cpu_s, request.cpu_s + 1))


def open_audio(request: Request) -> "tuple[InputContainer, AudioStream]":
    """The container and its audio track; every other track is left unread.

    The only protocol is the descriptor that was handed down, so no demuxer can name another file.
    """
    import av  # noqa: PLC0415 - after the bounds are set

    options = {
        "fd": str(request.fd),
        "protocol_whitelist": "fd",
        "format_whitelist": request.demuxer,
        "codec_whitelist": AUDIO_DECODERS,
        "max_streams": str(MAX_STREAMS),
    }
    try:
        container = av.open(
            "fd:", format=request.demuxer, container_options=options, metadata_errors="ignore"
        )
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        raise Refusal("corrupt_audio", "The file is damaged: its header or index cannot be read.") from error
    if not container.streams.audio:
        raise Refusal("no_audio", "The file holds no audio track.")
    stream = container.streams.best("audio") or container.streams.audio[0]
    for other in container.streams:
        if other is not stream:
            other.discard = av.stream.Discard.all
    return container, stream  # type: ignore[return-value]


def check(request: Request, container: "InputContainer", stream: "AudioStream") -> float | None:
    """The duration the file declares in seconds. Raises when its numbers cannot be right or are too large."""
    codec = stream.codec_context
    if codec is None or codec.codec.name not in AUDIO_DECODERS.split(","):
        raise Refusal("unsupported_format", "The audio track is in an encoding that is not taken here.")
    check_numbers(stream.rate or 0, stream.channels or 0)
    declared_s = declared_duration_s(container, stream)
    if declared_s is None or not request.duration_is_exact:
        return declared_s
    stop_s = declared_s if request.end_s is None else min(request.end_s, declared_s)
    if stop_s - request.start_s > request.max_duration_s:
        raise too_long(request)
    return declared_s


def declared_duration_s(container: "InputContainer", stream: "AudioStream") -> float | None:
    """The track's own duration; for want of it the container's, which may be that of a longer picture."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    return container.duration / MICROSECONDS if container.duration else None


def check_numbers(rate_hz: int, channels: int) -> None:
    if not rate_hz or not channels:
        raise Refusal("corrupt_audio", "The audio track declares no sample rate or no channels.")
    if not MIN_RATE_HZ <= rate_hz <= MAX_RATE_HZ:
        raise Refusal(
            "decode_limit",
            f"A sample rate of {rate_hz} Hz is outside the bounds of {MIN_RATE_HZ} to {MAX_RATE_HZ} Hz.",
        )
    if channels > MAX_CHANNELS:
        raise Refusal("decode_limit", f"{channels} channels are more than the {MAX_CHANNELS} allowed.")


def too_long(request: Request) -> Refusal:
    return Refusal("too_long", f"The recording is longer than {request.max_duration_s:.0f} seconds.")


def nothing_decoded(request: Request, track: "Track", declared_s: float | None) -> Refusal:
    is_stretch = request.start_s > 0 or request.end_s is not None
    if track.is_damaged or (declared_s and not is_stretch):
        return Refusal("corrupt_audio", "The audio is damaged: none of it could be decoded.")
    if is_stretch:
        return Refusal("empty_audio", "There is no audio between the start and the end asked for.")
    return Refusal("empty_audio", "The audio track is empty: it holds no samples.")


def seek(request: Request, container: "InputContainer", origin_s: float) -> bool:
    """Moves to a little before the start asked for, where that is worth it and can be trusted."""
    import av  # noqa: PLC0415 - after the bounds are set

    target_s = request.start_s - SEEK_MARGIN_S
    if target_s <= 0 or request.demuxer not in SEEKS_EXACTLY:
        return False
    try:
        container.seek(int((target_s + origin_s) * MICROSECONDS))
    except MemoryError:
        raise
    except av.error.FFmpegError:
        return False
    return True


class Track:
    """The audio track as a stream of frames. Damaged packets are counted and skipped."""

    def __init__(self, container: "InputContainer", stream: "AudioStream") -> None:
        self._container = container
        self._stream = stream
        self._damaged_packets = 0
        self._broke_off = False
        self.origin_s = (container.start_time or 0) / MICROSECONDS

    @property
    def is_damaged(self) -> bool:
        return self._broke_off or self._damaged_packets > 0

    def frames(self) -> "Iterator[AudioFrame]":
        import av  # noqa: PLC0415 - after the bounds are set

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


class Sound:
    """Frames become mono samples at 16 kHz, cut to the stretch asked for, and are sent in chunks.

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
        self._mix = Mix()
        self.sent = 0

    @property
    def is_complete(self) -> bool:
        return self._end is not None and self._position is not None and self._position >= self._end

    def place(self, frame: "AudioFrame") -> None:
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
        if self._mix.was_cancelled:
            found.append("opposite_phase: the channels cancel each other, their difference was used")
        if self._jumps:
            found.append(f"timestamp_jumps: {self._jumps} ignored")
        if declared_s is not None:
            stop_s = declared_s if self._request.end_s is None else min(declared_s, self._request.end_s)
            expected_s = stop_s - self._request.start_s
            decoded_s = self.sent / SAMPLE_RATE
            if decoded_s < expected_s - PARTIAL_S:
                found.append(f"partial_decode: declared {expected_s:.1f} s, decoded {decoded_s:.1f} s")
        return found

    def _follow_timestamp(self, frame: "AudioFrame", lanes: "Lanes") -> None:
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
        chunk_bytes = CHUNK_SAMPLES * width
        for begin in range(0, len(self._pending), chunk_bytes):
            chunk = self._pending[begin : begin + chunk_bytes]
            send(Kind.SOUND, self._mix.mono(chunk, width))
        self.sent += len(self._pending) // width
        self._pending = bytearray()

    def _drain(self) -> None:
        if self._lanes is None:
            return
        self._add(self._lanes.drain(), self._lanes.width)
        if self._pending:
            self._send(self._lanes.width)


class Lanes:
    """The filter graph for frames of one shape: in any form, out at 16 kHz in one lane of s16.

    Of two channels it makes two lanes, half their sum and half their difference: `Mix` chooses.
    """

    def __init__(self, frame: "AudioFrame") -> None:
        from av.filter import Graph  # noqa: PLC0415 - after the bounds are set

        channels = frame.layout.nb_channels
        self._shape = shape(frame)
        self.width = SAMPLE_BYTES * (2 if channels == 2 else 1)
        graph = Graph()
        steps: list[FilterContext] = [
            graph.add_abuffer(
                sample_rate=frame.sample_rate,
                format=frame.format.name,
                layout=frame.layout.name,
                channels=channels,
                time_base=frame.time_base,
            )
        ]
        if pan := panning(frame.layout.name, channels):
            steps.append(graph.add("pan", pan))
        out = "stereo" if channels == 2 else "mono"
        steps.append(
            graph.add("aformat", f"sample_fmts=s16:sample_rates={SAMPLE_RATE}:channel_layouts={out}")
        )
        steps.append(graph.add("abuffersink"))
        for step, following in pairwise(steps):
            step.link_to(following)
        graph.configure()
        self._source, self._sink = steps[0], steps[-1]
        self._graph = graph

    def fits(self, frame: "AudioFrame") -> bool:
        return shape(frame) == self._shape

    def push(self, frame: "AudioFrame") -> bytes:
        # The filters need no timestamps, and broken ones would only confuse them.
        frame.pts = None
        self._source.push(frame)
        return self._pull()

    def drain(self) -> bytes:
        """What the resampler still holds. Nothing can be pushed afterwards."""
        self._source.push(None)
        return self._pull()

    def _pull(self) -> bytes:
        import av  # noqa: PLC0415 - after the bounds are set

        samples = bytearray()
        while True:
            try:
                frame = self._sink.pull()
            except (av.error.BlockingIOError, av.error.EOFError):
                return bytes(samples)
            samples += memoryview(frame.planes[0])[: frame.samples * self.width]  # type: ignore[attr-defined]


def shape(frame: "AudioFrame") -> tuple[int, str, str]:
    return frame.sample_rate, frame.format.name, frame.layout.name


def panning(layout: str, channels: int) -> str | None:
    """None where libav knows from the layout how to mix. One without names ("9 channels") is averaged."""
    if channels == 2:
        return "stereo|c0=0.5*c0+0.5*c1|c1=0.5*c0-0.5*c1"
    if channels > 2 and layout.endswith("channels"):
        share = f"{1 / channels:.6f}"
        return "mono|c0=" + "+".join(f"{share}*c{channel}" for channel in range(channels))
    return None


class Mix:
    """Chooses between sum and difference of two channels, chunk by chunk.

    The plain sum of a recording with one channel wired the wrong way round is silence.
    """

    def __init__(self) -> None:
        self._lane = 0
        self.was_cancelled = False

    def mono(self, samples: bytes | bytearray, width: int) -> bytes | bytearray:
        if width == SAMPLE_BYTES:
            return samples
        import numpy as np  # noqa: PLC0415 - after the bounds are set, and only for stereo

        lanes = np.frombuffer(samples, np.int16).reshape(-1, width // SAMPLE_BYTES)
        power = np.square(lanes, dtype=np.float32).sum(axis=0)
        other = 1 - self._lane
        if power[other] > CANCELLED * power[self._lane]:
            self._lane = other
            self.was_cancelled |= other == 1
        return lanes[:, self._lane].tobytes()


def send_probe(request: Request, stream: "AudioStream", declared_s: float | None) -> None:
    probe = {
        "container": "mp4" if request.demuxer == "mov" else request.demuxer,
        "codec": stream.codec_context.codec.canonical_name,
        "duration_s": declared_s,
        "sample_rate": stream.rate,
        "channels": stream.channels,
    }
    send_json(Kind.PROBE, probe)


def send_failure(refusal: Refusal) -> None:
    send_json(Kind.FAILURE, {"code": refusal.code, "detail": refusal.detail})


def send_json(kind: Kind, payload: dict[str, Any]) -> None:
    send(kind, json.dumps(payload).encode())


def send(kind: Kind, payload: bytes | bytearray) -> None:
    out = sys.stdout.buffer
    out.write(MESSAGE.pack(kind.encode(), len(payload)))
    out.write(payload)
    out.flush()


if __name__ == "__main__":
    main()
