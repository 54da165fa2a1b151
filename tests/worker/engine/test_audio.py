"""Decoding: every container we take, the ones we refuse, and what broken and hostile files come to."""

import os
import signal
import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
import pytest

from shared.errors import (
    CorruptAudio,
    DecodeLimit,
    DecoderCrashed,
    DecodeTimeout,
    EmptyAudio,
    JobError,
    NoAudio,
    OutOfMemory,
    TooLong,
    UnsupportedFormat,
)
from tests.support.recordings import CANARY_HZ, HALF_SCALE, TONE_HZ, encode, tone, write_wav
from worker.engine.audio import BLOCK_SECONDS, DECODER, DecodeLimits, Decoding, decode, sniff
from worker.engine.media_format import MediaFormat
from worker.engine.values import SAMPLE_RATE, Pcm

LIMITS = DecodeLimits(timeout_s=60.0, memory_bytes=512 << 20, max_duration_s=3600.0)


def listen(path: Path, limits: DecodeLimits = LIMITS, **stretch: float) -> tuple[Pcm, Decoding]:
    with decode(path, limits, **stretch) as decoding:
        blocks = list(decoding.blocks())
    return np.concatenate(blocks), decoding


def decoders() -> list[psutil.Process]:
    """Our children that decode; the session's Redis is another one."""
    return [child for child in psutil.Process().children() if is_decoder(child)]


def is_decoder(child: psutil.Process) -> bool:
    """What other tests have ended and not waited for has no command any more."""
    try:
        return str(DECODER) in child.cmdline()
    except (psutil.NoSuchProcess, psutil.ZombieProcess):
        return False


def loudest_hertz(pcm: Pcm) -> float:
    spectrum = np.abs(np.fft.rfft(pcm * np.hanning(len(pcm))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(pcm))


def rms(pcm: Pcm) -> float:
    return float(np.sqrt(np.square(pcm, dtype=np.float64).mean()))


@pytest.mark.parametrize(
    ("container", "codec", "rate", "shown"),
    [
        ("wav", "pcm_s16le", 44_100, ("wav", "pcm_s16le")),
        ("wav", "pcm_mulaw", 8_000, ("wav", "pcm_mulaw")),
        ("wav", "pcm_f32le", 96_000, ("wav", "pcm_f32le")),
        ("w64", "pcm_s24le", 48_000, ("w64", "pcm_s24le")),
        ("aiff", "pcm_s16be", 22_050, ("aiff", "pcm_s16be")),
        ("caf", "pcm_s16be", 44_100, ("caf", "pcm_s16be")),
        ("flac", "flac", 44_100, ("flac", "flac")),
        ("mp3", "libmp3lame", 44_100, ("mp3", "mp3")),
        ("mp3", "libmp3lame", 16_000, ("mp3", "mp3")),
        ("mp2", "mp2", 44_100, ("mp3", "mp2")),
        ("adts", "aac", 48_000, ("aac", "aac")),
        ("ipod", "aac", 44_100, ("mp4", "aac")),
        ("ipod", "alac", 44_100, ("mp4", "alac")),
        ("mov", "pcm_s16le", 44_100, ("mp4", "pcm_s16le")),
        ("ogg", "libopus", 48_000, ("ogg", "opus")),
        ("webm", "libopus", 48_000, ("matroska", "opus")),
        ("matroska", "aac", 48_000, ("matroska", "aac")),
        ("amr", "libopencore_amrnb", 8_000, ("amr", "amr_nb")),
        ("asf", "wmav2", 44_100, ("asf", "wmav2")),
    ],
)
def test_every_container_gives_the_same_sound(
    tmp_path: Path, container: str, codec: str, rate: int, shown: tuple[str, str]
) -> None:
    path = encode(tmp_path / "upload", container, codec, tone(3.0, rate), rate)

    pcm, decoding = listen(path)

    assert (decoding.probe.container, decoding.probe.codec) == shown
    assert (decoding.probe.sample_rate, decoding.probe.channels) == (rate, 1)
    assert decoding.decoded_s == pytest.approx(3.0, abs=0.15)
    assert len(pcm) / SAMPLE_RATE == decoding.decoded_s
    assert loudest_hertz(pcm) == pytest.approx(TONE_HZ, abs=1.0)
    assert rms(pcm) == pytest.approx(HALF_SCALE / np.sqrt(2), rel=0.15)
    assert decoding.warnings == ()


@pytest.mark.parametrize("container", ["mp4", "matroska", "mov"])
def test_of_a_video_only_the_sound_is_read(tmp_path: Path, container: str) -> None:
    path = encode(tmp_path / "upload", container, "aac", tone(2.0, 48_000), 48_000, with_video=True)

    pcm, decoding = listen(path)

    assert decoding.probe.codec == "aac"
    assert loudest_hertz(pcm) == pytest.approx(TONE_HZ, abs=1.0)
    assert decoding.warnings == ()


def test_a_video_without_sound_has_no_audio(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with av.open(path, "w", format="mp4") as output:
        picture = output.add_stream("mpeg4", rate=10)
        picture.width = picture.height = 64
        picture.pix_fmt = "yuv420p"
        for _ in range(5):
            output.mux(picture.encode(av.VideoFrame(64, 64, "yuv420p")))
        output.mux(picture.encode(None))

    with pytest.raises(NoAudio):
        decode(path, LIMITS)


def test_sound_comes_in_blocks(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "upload", tone(70.0))

    with decode(path, LIMITS) as decoding:
        sizes = [len(block) / SAMPLE_RATE for block in decoding.blocks()]

    assert sizes == [BLOCK_SECONDS, BLOCK_SECONDS, 10]


@pytest.mark.parametrize(
    ("left", "right", "expected"),
    [
        (1.0, 1.0, 1.0),
        (1.0, 0.0, 0.5),
        (0.0, 1.0, 0.5),
        (1.0, -1.0, 1.0),
        (1.0, -0.9, 0.95),
    ],
    ids=["both alike", "right silent", "left silent", "opposite phase", "nearly opposite phase"],
)
def test_no_way_of_recording_two_channels_is_lost_in_the_mix(
    tmp_path: Path, left: float, right: float, expected: float
) -> None:
    sound = tone(3.0, 44_100)
    channels = [(sound * share).astype(np.int16) for share in (left, right)]

    pcm, decoding = listen(write_wav(tmp_path / "upload", *channels, rate=44_100))

    assert decoding.probe.channels == 2
    assert rms(pcm[SAMPLE_RATE:-SAMPLE_RATE]) == pytest.approx(expected * HALF_SCALE / np.sqrt(2), rel=0.02)
    assert any("opposite_phase" in warning for warning in decoding.warnings) == (right < 0)


@pytest.mark.parametrize("count", [3, 6, 9, 32])
def test_many_channels_become_one(tmp_path: Path, count: int) -> None:
    pcm, decoding = listen(write_wav(tmp_path / "upload", *[tone(1.0, 48_000)] * count, rate=48_000))

    assert decoding.probe.channels == count
    assert rms(pcm[2000:-2000]) == pytest.approx(HALF_SCALE / np.sqrt(2), rel=0.02)


@pytest.mark.parametrize(
    ("container", "codec"),
    [("wav", "pcm_s16le"), ("flac", "flac"), ("mp3", "libmp3lame"), ("ipod", "aac"), ("ogg", "libopus")],
)
def test_a_stretch_of_the_file_is_cut_where_it_was_asked_for(
    tmp_path: Path, container: str, codec: str
) -> None:
    sound = np.concatenate([tone(20.0, 48_000), tone(10.0, 48_000, CANARY_HZ), tone(10.0, 48_000)])
    path = encode(tmp_path / "upload", container, codec, sound, 48_000)

    pcm, decoding = listen(path, start_s=20.0, end_s=30.0)

    assert decoding.decoded_s == 10.0
    middle = pcm[SAMPLE_RATE // 10 : -SAMPLE_RATE // 10]
    for part in np.array_split(middle, 20):
        assert loudest_hertz(part) == pytest.approx(CANARY_HZ, abs=5.0)
    assert decoding.warnings == ()


def test_a_stretch_behind_the_end_is_empty(tmp_path: Path) -> None:
    with pytest.raises(EmptyAudio, match="between the start and the end"):
        listen(write_wav(tmp_path / "upload", tone(1.0)), start_s=5.0)


def test_the_sound_may_change_its_form_on_the_way(tmp_path: Path) -> None:
    """Radio recordings and joined files do: here the rate, in a chain of two streams."""
    path = tmp_path / "upload"
    first = encode(tmp_path / "first", "mp3", "libmp3lame", tone(3.0, 44_100), 44_100).read_bytes()
    second = encode(tmp_path / "second", "mp3", "libmp3lame", tone(3.0, 32_000), 32_000).read_bytes()
    path.write_bytes(first + second)

    pcm, _ = listen(path)

    assert len(pcm) / SAMPLE_RATE == pytest.approx(6.0, abs=0.4)
    assert loudest_hertz(pcm[-2 * SAMPLE_RATE : -SAMPLE_RATE]) == pytest.approx(TONE_HZ, abs=2.0)


def test_a_hole_in_the_timestamps_becomes_silence(tmp_path: Path) -> None:
    path = tmp_path / "upload"
    with av.open(path, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        for begin_s in (0.0, 0.5, 5.0):
            frame = av.AudioFrame.from_ndarray(tone(0.5)[None], format="s16", layout="mono")
            frame.sample_rate, frame.time_base = SAMPLE_RATE, Fraction(1, SAMPLE_RATE)
            frame.pts = round(begin_s * SAMPLE_RATE)
            output.mux(stream.encode(frame))

    pcm, _ = listen(path)

    assert len(pcm) / SAMPLE_RATE == pytest.approx(5.5, abs=0.02)
    assert not pcm[round(1.1 * SAMPLE_RATE) : round(4.9 * SAMPLE_RATE)].any()
    assert loudest_hertz(pcm[round(5.05 * SAMPLE_RATE) :]) == pytest.approx(TONE_HZ, abs=5.0)


def playlist_files(canary: str) -> dict[str, str]:
    return {
        "ffconcat": f"ffconcat version 1.0\nfile {canary}\n",
        "concat": f"file '{canary}'\n",
        "hls": f"#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{canary}\n#EXT-X-ENDLIST\n",
        "dash": f'<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet '
        f'mimeType="audio/wav"><Representation id="1" bandwidth="1"><BaseURL>{canary}</BaseURL>'
        f"</Representation></AdaptationSet></Period></MPD>",
        "sdp": "v=0\nc=IN IP4 127.0.0.1\nm=audio 5004 RTP/AVP 0\n",
        "text": "These are only words. " * 500,
    }


@pytest.mark.parametrize("kind", playlist_files(""))
@pytest.mark.parametrize("is_absolute", [False, True])
def test_no_playlist_reads_the_file_next_to_it(tmp_path: Path, kind: str, is_absolute: bool) -> None:
    canary = write_wav(tmp_path / "canary.wav", tone(2.0, hertz=CANARY_HZ))
    path = tmp_path / "upload.wav"
    path.write_text(playlist_files(str(canary) if is_absolute else canary.name)[kind])

    with pytest.raises(UnsupportedFormat):
        decode(path, LIMITS)


def test_the_canary_would_be_heard_without_our_rules(tmp_path: Path) -> None:
    """The test above can fail: the same playlist leaks when libav may choose the demuxer itself."""
    write_wav(tmp_path / "canary.wav", tone(2.0, hertz=CANARY_HZ))
    path = tmp_path / "upload.wav"
    path.write_text(playlist_files("canary.wav")["ffconcat"])

    with av.open(path) as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]

    assert loudest_hertz(np.concatenate(frames)) == pytest.approx(CANARY_HZ, abs=1.0)


def test_a_playlist_behind_media_magic_is_read_as_that_media(tmp_path: Path) -> None:
    write_wav(tmp_path / "canary.wav", tone(2.0, hertz=CANARY_HZ))
    path = tmp_path / "upload.wav"
    path.write_bytes(b"fLaC\n" + playlist_files("canary.wav")["ffconcat"].encode())

    with pytest.raises(CorruptAudio):
        listen(path)


def test_a_playlist_that_got_past_the_sniffer_still_reads_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "canary.wav", tone(2.0, hertz=CANARY_HZ))
    path = tmp_path / "upload.wav"
    path.write_text(playlist_files("canary.wav")["ffconcat"])

    with path.open("rb") as file, pytest.raises(CorruptAudio):
        Decoding(file.fileno(), MediaFormat("concat", True, None), LIMITS, 0.0, None)


def test_an_empty_file_is_empty_audio(tmp_path: Path) -> None:
    (tmp_path / "upload").touch()

    with pytest.raises(EmptyAudio):
        decode(tmp_path / "upload", LIMITS)


def test_a_header_without_samples_is_empty_audio(tmp_path: Path) -> None:
    with pytest.raises(EmptyAudio):
        listen(write_wav(tmp_path / "upload", tone(0.0)))


@pytest.mark.parametrize("declared_bytes", [0, 0x7FFF_FFFF, 0xFFFF_FFFF])
def test_the_size_a_wav_declares_is_not_believed(tmp_path: Path, declared_bytes: int) -> None:
    """Recorders that write to a pipe leave such sizes behind."""
    path = write_wav(tmp_path / "upload", tone(2.0))
    content = bytearray(path.read_bytes())
    content[40:44] = struct.pack("<I", declared_bytes)
    path.write_bytes(content)

    pcm, decoding = listen(path)

    assert len(pcm) == 2 * SAMPLE_RATE
    assert decoding.warnings == ()


def test_a_cut_mp3_gives_what_is_there_and_says_so(tmp_path: Path) -> None:
    path = encode(tmp_path / "upload", "mp3", "libmp3lame", tone(30.0), SAMPLE_RATE)
    os.truncate(path, path.stat().st_size // 3)

    pcm, decoding = listen(path)

    assert len(pcm) / SAMPLE_RATE == pytest.approx(10.0, abs=0.5)
    assert decoding.warnings == (f"partial_decode: declared 30.0 s, decoded {decoding.decoded_s:.1f} s",)


@pytest.mark.parametrize(
    ("container", "codec"), [("flac", "flac"), ("wav", "pcm_s16le"), ("aiff", "pcm_s16be")]
)
def test_other_cut_files_say_so_too(tmp_path: Path, container: str, codec: str) -> None:
    path = encode(tmp_path / "upload", container, codec, tone(30.0), SAMPLE_RATE)
    os.truncate(path, path.stat().st_size // 3)

    _, decoding = listen(path)

    assert decoding.decoded_s == pytest.approx(10.0, abs=1.5)
    assert any(warning.startswith("partial_decode: declared 30.0 s") for warning in decoding.warnings)


def test_a_cut_m4a_has_lost_its_index(tmp_path: Path) -> None:
    path = encode(tmp_path / "upload", "ipod", "aac", tone(10.0, 44_100), 44_100)
    os.truncate(path, path.stat().st_size // 2)

    with pytest.raises(CorruptAudio):
        decode(path, LIMITS)


@pytest.mark.parametrize(
    ("container", "codec"), [("mp3", "libmp3lame"), ("flac", "flac"), ("ogg", "libopus")]
)
def test_damage_in_the_middle_is_skipped(tmp_path: Path, container: str, codec: str) -> None:
    path = encode(tmp_path / "upload", container, codec, tone(20.0, 48_000), 48_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + len(content) // 50] = np.random.default_rng(0).bytes(len(content) // 50)
    path.write_bytes(content)

    pcm, decoding = listen(path)

    assert decoding.decoded_s == pytest.approx(20.0, abs=1.5)
    assert loudest_hertz(pcm[: 5 * SAMPLE_RATE]) == pytest.approx(TONE_HZ, abs=1.0)
    assert loudest_hertz(pcm[-5 * SAMPLE_RATE :]) == pytest.approx(TONE_HZ, abs=1.0)


def test_damaged_packets_are_counted(tmp_path: Path) -> None:
    path = encode(tmp_path / "upload", "ipod", "aac", tone(20.0, 48_000), 48_000)
    content = bytearray(path.read_bytes())
    middle = len(content) // 3
    content[middle : middle + 2000] = b"\xff" * 2000
    path.write_bytes(content)

    _, decoding = listen(path)

    assert any(warning.startswith("damaged_packets: ") for warning in decoding.warnings)


def test_where_nothing_can_be_decoded_the_audio_is_corrupt(tmp_path: Path) -> None:
    path = encode(tmp_path / "upload", "flac", "flac", tone(5.0), SAMPLE_RATE)
    content = path.read_bytes()
    path.write_bytes(content[:100] + bytes(len(content) - 100))

    with pytest.raises(CorruptAudio):
        listen(path)


@pytest.mark.parametrize("rate", [1, 999, 400_000])
def test_a_sample_rate_that_cannot_be_is_refused(tmp_path: Path, rate: int) -> None:
    """At 1 Hz a few megabytes are a thousand hours."""
    with pytest.raises(DecodeLimit, match=f"{rate} Hz"):
        decode(write_wav(tmp_path / "upload", tone(1.0), rate=rate), LIMITS)


def test_too_many_channels_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DecodeLimit, match="64 channels"):
        decode(write_wav(tmp_path / "upload", *[tone(0.1)] * 64), LIMITS)


def silent_flac(path: Path, seconds: int, *, declares_length: bool) -> Path:
    """Hours of silence in a few kilobytes."""
    with av.open(path, "w", format="flac") as output:
        stream = output.add_stream("flac", rate=8_000, layout="mono")
        block = np.zeros((1, 8_000 * 60), np.int16)
        for minute in range(seconds // 60):
            frame = av.AudioFrame.from_ndarray(block, format="s16", layout="mono")
            frame.sample_rate, frame.pts = 8_000, minute * block.shape[1]
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    if not declares_length:
        content = bytearray(path.read_bytes())
        content[21] &= 0xF0
        content[22:26] = bytes(4)
        path.write_bytes(content)
    return path


@pytest.mark.parametrize("declares_length", [True, False])
def test_a_bomb_of_silence_is_too_long(tmp_path: Path, declares_length: bool) -> None:
    path = silent_flac(tmp_path / "upload", 1800, declares_length=declares_length)
    limits = DecodeLimits(timeout_s=60.0, memory_bytes=512 << 20, max_duration_s=600.0)

    heard = 0
    with pytest.raises(TooLong), decode(path, limits) as decoding:  # noqa: PT012 - how far it got counts
        for block in decoding.blocks():
            heard += len(block)

    assert heard == 0 if declares_length else heard > 0
    assert heard <= limits.max_duration_s * SAMPLE_RATE


@pytest.mark.slow
@pytest.mark.calm
def test_a_day_of_silence_is_too_long(tmp_path: Path) -> None:
    path = silent_flac(tmp_path / "upload", 24 * 3600, declares_length=False)
    limits = DecodeLimits(timeout_s=120.0, memory_bytes=512 << 20, max_duration_s=4 * 3600.0)

    with pytest.raises(TooLong):
        listen(path, limits)


def test_of_a_long_file_a_short_stretch_is_welcome(tmp_path: Path) -> None:
    limits = DecodeLimits(timeout_s=60.0, memory_bytes=512 << 20, max_duration_s=10.0)
    path = write_wav(tmp_path / "upload", tone(60.0))

    pcm, _ = listen(path, limits, start_s=40.0, end_s=50.0)

    assert len(pcm) == 10 * SAMPLE_RATE
    with pytest.raises(TooLong):
        listen(path, limits, start_s=40.0)


def test_a_decoder_that_is_killed_has_crashed(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "upload", tone(300.0))

    with decode(path, LIMITS) as decoding:
        (child,) = decoders()
        child.send_signal(signal.SIGSEGV)
        with pytest.raises(DecoderCrashed) as caught:
            list(decoding.blocks())

    assert "signal 11" in caught.value.__notes__[0]
    assert "11" not in caught.value.detail


def test_leaving_early_ends_the_child(tmp_path: Path) -> None:
    path = write_wav(tmp_path / "upload", tone(300.0))

    with decode(path, LIMITS) as decoding:
        (child,) = decoders()
        next(decoding.blocks())

    assert not child.is_running()


def test_a_refused_file_leaves_no_child_and_no_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))

    with pytest.raises(DecodeLimit):
        decode(write_wav(tmp_path / "upload", tone(0.1), rate=1), LIMITS)

    assert decoders() == []
    assert list(scratch.iterdir()) == []


def test_the_child_sees_nothing_of_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANANSE_SECRET", "sesame")

    with decode(write_wav(tmp_path / "upload", tone(300.0)), LIMITS):
        (child,) = decoders()
        environment, folder = child.environ(), child.cwd()
        files = {descriptor.path for descriptor in child.open_files()}
        limits = Path(f"/proc/{child.pid}/limits").read_text().splitlines()
        status = Path(f"/proc/{child.pid}/status").read_text()

        assert "ANANSE_SECRET" not in environment
        assert not Path(folder).exists()
        assert str(tmp_path / "upload") in files
        assert os.getsid(child.pid) == child.pid
        for bound, most in (("address space", LIMITS.memory_bytes), ("core file size", 0), ("processes", 0)):
            (line,) = (line for line in limits if line.startswith(f"Max {bound} "))
            assert line.removeprefix(f"Max {bound}").split()[:2] == [str(most)] * 2
        assert {"NoNewPrivs:\t1", "Seccomp:\t2"} <= set(status.splitlines())


def test_waiting_has_an_end(tmp_path: Path) -> None:
    limits = DecodeLimits(timeout_s=0.001, memory_bytes=512 << 20, max_duration_s=3600.0)

    with pytest.raises(DecodeTimeout):
        decode(write_wav(tmp_path / "upload", tone(1.0)), limits)


def test_a_frozen_decoder_times_out(tmp_path: Path) -> None:
    limits = DecodeLimits(timeout_s=1.0, memory_bytes=512 << 20, max_duration_s=3600.0)

    with decode(write_wav(tmp_path / "upload", tone(300.0)), limits) as decoding:
        (child,) = decoders()
        child.suspend()
        with pytest.raises(DecodeTimeout):
            list(decoding.blocks())

    assert not child.is_running()


@pytest.mark.parametrize("memory_bytes", [30 << 20, 60 << 20])
def test_a_decoder_out_of_memory_says_so(tmp_path: Path, memory_bytes: int) -> None:
    limits = DecodeLimits(timeout_s=60.0, memory_bytes=memory_bytes, max_duration_s=3600.0)

    with pytest.raises(OutOfMemory):
        listen(write_wav(tmp_path / "upload", tone(1.0)), limits)


def test_a_packet_larger_than_the_memory_ends_only_the_child(tmp_path: Path) -> None:
    """One audio block that fills 300 MB, on disk a hole."""
    path = tmp_path / "upload"
    with av.open(path, "w", format="matroska") as output:
        stream = output.add_stream("pcm_s16le", rate=SAMPLE_RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(tone(0.5)[None], format="s16", layout="mono")
        frame.sample_rate = SAMPLE_RATE
        output.mux(stream.encode(frame))
    huge = struct.pack(">I", 0x1000_0000 | 300 << 20)
    content = path.read_bytes()
    block = content.index(b"\xa3", content.index(b"\x1f\x43\xb6\x75"))
    path.write_bytes(content[: block + 1] + huge + content[block + 3 :])
    os.truncate(path, 400 << 20)
    limits = DecodeLimits(timeout_s=60.0, memory_bytes=256 << 20, max_duration_s=3600.0)

    with pytest.raises(JobError) as caught:
        listen(path, limits)

    assert isinstance(caught.value, OutOfMemory | CorruptAudio)


@pytest.mark.parametrize(
    ("head", "demuxer"),
    [
        (b"RIFF\x00\x00\x00\x00WAVEfmt ", "wav"),
        (b"RIFF\x00\x00\x00\x00AVI LIST", None),
        (b"FORM\x00\x00\x00\x00AIFC", "aiff"),
        (b"\x00\x00\x00\x20ftypM4A ", "mov"),
        (b"#!AMR-WB\n", "amr"),
        (b"#EXTM3U\n", None),
        (b"ffconcat version 1.0\n", None),
        (b"<?xml version='1.0'?><MPD", None),
        ("\ufeffplain words".encode("utf-16"), None),
        (b"\xff" * 10_000, None),
        (b"%PDF-1.7", None),
        (b"", None),
    ],
)
def test_only_media_is_known_by_its_first_bytes(head: bytes, demuxer: str | None) -> None:
    assert sniff(head) == demuxer


@pytest.mark.parametrize(
    ("container", "codec", "demuxer"), [("mp3", "libmp3lame", "mp3"), ("adts", "aac", "aac")]
)
def test_a_raw_stream_is_known_behind_junk_and_tags(
    tmp_path: Path, container: str, codec: str, demuxer: str
) -> None:
    path = encode(tmp_path / "upload", container, codec, tone(2.0), SAMPLE_RATE)
    content = path.read_bytes()
    path.write_bytes(b"ID3\x04\x00\x00\x00\x02\x00\x00" + bytes(2 << 14) + content)

    assert sniff(content[1000:]) == demuxer
    assert loudest_hertz(listen(path)[0]) == pytest.approx(TONE_HZ, abs=1.0)
