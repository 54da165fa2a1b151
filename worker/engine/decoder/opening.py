"""Opens the one track of the one file, with one demuxer, and refuses what its header says too much of."""

import av

# These two PyAV would load when it meets such a track, and by then no file is in sight.
import av.subtitles.codeccontext
import av.subtitles.stream
from av.audio.stream import AudioStream
from av.container import InputContainer

from worker.engine.decoder.protocol import Refusal, Request

MICROSECONDS = 1_000_000

MIN_RATE_HZ = 1_000
MAX_RATE_HZ = 384_000
MAX_CHANNELS = 32
MAX_STREAMS = 64

SEEK_MARGIN_S = 1.0
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


def open_audio(request: Request) -> tuple[InputContainer, AudioStream]:
    """The container and its audio track; every other track is left unread.

    The only protocol is the descriptor that was handed down, so no demuxer can name another file.
    """
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


def check(request: Request, container: InputContainer, stream: AudioStream) -> float | None:
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


def declared_duration_s(container: InputContainer, stream: AudioStream) -> float | None:
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


def seek(request: Request, container: InputContainer, origin_s: float) -> bool:
    """Moves to a little before the start asked for, where that is worth it and can be trusted."""
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
