"""What the child does once it is sealed: open, check, decode, send."""

from collections.abc import Sequence

import av
from av.audio.stream import AudioStream

from worker.engine.decoder.opening import check, open_audio, seek
from worker.engine.decoder.protocol import Kind, Refusal, Request, send_json
from worker.engine.decoder.sound import Sound
from worker.engine.decoder.track import Track


def decode(request: Request, guards: Sequence[str]) -> None:
    """`guards` are told with the probe. Raises Refusal, or MemoryError."""
    try:
        _decode(request, guards)
    except MemoryError:
        raise
    except av.error.FFmpegError as error:
        # Not from the places where damage is usual: a filter that cannot take what the decoder made.
        raise Refusal("corrupt_audio", "The audio is damaged and could not be decoded.") from error


def _decode(request: Request, guards: Sequence[str]) -> None:
    container, stream = open_audio(request)
    declared_s = check(request, container, stream)
    send_probe(request, stream, declared_s, guards)
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


def nothing_decoded(request: Request, track: Track, declared_s: float | None) -> Refusal:
    is_stretch = request.start_s > 0 or request.end_s is not None
    if track.is_damaged or (declared_s and not is_stretch):
        return Refusal("corrupt_audio", "The audio is damaged: none of it could be decoded.")
    if is_stretch:
        return Refusal("empty_audio", "There is no audio between the start and the end asked for.")
    return Refusal("empty_audio", "The audio track is empty: it holds no samples.")


def send_probe(
    request: Request, stream: AudioStream, declared_s: float | None, guards: Sequence[str]
) -> None:
    probe = {
        "container": "mp4" if request.demuxer == "mov" else request.demuxer,
        "codec": stream.codec_context.codec.canonical_name,
        "duration_s": declared_s,
        "sample_rate": stream.rate,
        "channels": stream.channels,
        "guards": list(guards),
    }
    send_json(Kind.PROBE, probe)
