"""Files that name other files and addresses: playlists, manifests, movies whose sound lies elsewhere. Beside
the upload lies a recording with a tone of its own, on loopback listens a server: the tone is never heard, the
server never called."""

import re
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest

from shared.errors import CorruptAudio, EmptyAudio, JobError, NoAudio, UnsupportedFormat
from tests.support.boxes import box, replaced
from tests.support.recordings import CANARY_HZ, encode, tone, write_wav
from worker.engine.audio import DecodeLimits, Decoding, decode
from worker.engine.media_format import MediaFormat
from worker.engine.values import SAMPLE_RATE, Pcm

LIMITS = DecodeLimits(timeout_s=30.0, memory_bytes=512 << 20, max_duration_s=3600.0)
ID3_TAG = b"ID3\x04\x00\x00\x00\x00\x00\x00"

KINDS = {
    "concat": "file '{target}'\n",
    "ffconcat": "ffconcat version 1.0\nfile {target}\n",
    "hls": "#EXTM3U\n#EXT-X-TARGETDURATION:5\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n",
    "hls key": '#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n',
    "hls map": '#EXTM3U\n#EXT-X-MAP:URI="{target}"\n#EXTINF:5,\n{target}\n#EXT-X-ENDLIST\n',
    "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011"><Period><AdaptationSet '
    'mimeType="audio/wav"><Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\nc=IN IP4 127.0.0.1\na=control:{target}\nm=audio {port} RTP/AVP 0\n",
    "pls": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "asx": '<asx version="3.0"><entry><ref href="{target}"/></entry></asx>',
    "rtsp text": "rtsptextRTSP://{target}\n",
    "smil": '<smil><body><audio src="{target}"/></body></smil>',
    "subtitles": "WEBVTT\n\n00:00.000 --> 00:10.000\n{target}\n",
}
TARGETS = (
    "canary.wav",
    "{folder}/canary.wav",
    "file:{folder}/canary.wav",
    "http://127.0.0.1:{port}/canary.wav",
)
FORCED = ("concat", "hls", "dash", "sdp", "image2", "mov")


class Yard:
    """The upload, the recording beside it, and the server."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self.upload = folder / "upload.wav"
        self.port = listener.getsockname()[1]
        self.folder = folder
        self._listener = listener
        write_wav(folder / "canary.wav", tone(2.0, hertz=CANARY_HZ))

    def write(self, kind: str, target: str) -> None:
        named = target.format(folder=self.folder, port=self.port)
        self.upload.write_text(KINDS[kind].format(target=named, port=self.port))

    def was_called(self) -> bool:
        with suppress(BlockingIOError):
            self._listener.accept()[0].close()
            return True
        return False


@pytest.fixture
def yard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Yard]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        # The worker's own folder is where a name without a path leads.
        monkeypatch.chdir(tmp_path)
        yield Yard(tmp_path, listener)


def loudest_hertz(sound: Pcm) -> float:
    spectrum = np.abs(np.fft.rfft(sound * np.hanning(len(sound))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(sound))


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("kind", KINDS)
def test_no_file_leads_to_another(yard: Yard, kind: str, target: str) -> None:
    yard.write(kind, target)

    for prefix in (b"", ID3_TAG, "\ufeff".encode()):
        yard.upload.write_bytes(prefix + yard.upload.read_bytes())
        with pytest.raises(UnsupportedFormat):
            decode(yard.upload, LIMITS)
    assert not yard.was_called()


@pytest.mark.parametrize("magic", [b"fLaC", b"OggS", b"RIFF\x00\x01\x00\x00WAVE", b"\x1a\x45\xdf\xa3"])
def test_nor_behind_the_magic_of_a_recording(yard: Yard, magic: bytes) -> None:
    for kind in KINDS:
        yard.write(kind, TARGETS[0])
        yard.upload.write_bytes(magic + b"\n" + yard.upload.read_bytes())
        with pytest.raises((CorruptAudio, EmptyAudio, NoAudio)):
            decode(yard.upload, LIMITS)
        if kind == "hls":
            break
    assert not yard.was_called()


@pytest.mark.parametrize("target", [TARGETS[0], TARGETS[3]])
@pytest.mark.parametrize("demuxer", FORCED)
def test_past_the_sniffer_there_is_still_nothing_to_be_had(yard: Yard, demuxer: str, target: str) -> None:
    yard.write(demuxer if demuxer in KINDS else "hls", target)

    with yard.upload.open("rb") as file, pytest.raises(JobError) as caught:
        Decoding(file.fileno(), MediaFormat(demuxer, True, None), LIMITS, 0.0, None)

    assert caught.value.code in ("corrupt_audio", "no_audio", "empty_audio", "decoder_crashed")
    assert not re.search(r"canary|/", caught.value.detail)
    assert not yard.was_called()


@pytest.mark.parametrize("kind", [b"url ", b"alis"])
def test_a_movie_whose_sound_lies_in_another_file(yard: Yard, kind: bytes) -> None:
    refer(yard, kind)

    with suppress(JobError), decode(yard.upload, LIMITS) as decoding:
        sound = np.concatenate(list(decoding.blocks()))
        assert abs(loudest_hertz(sound) - CANARY_HZ) > 100
    assert not yard.was_called()


def refer(yard: Yard, kind: bytes) -> None:
    """A movie that says: my samples are those of the canary."""
    encode(yard.upload, "mov", "pcm_s16le", tone(2.0), SAMPLE_RATE)
    address = str(yard.folder / "canary.wav").encode() + b"\x00"
    reference = box(kind, struct.pack(">I", 0) + address)
    list_ = box(b"dref", struct.pack(">II", 0, 1) + reference)
    path = [b"moov", b"trak", b"mdia", b"minf", b"dinf", b"dref"]
    yard.upload.write_bytes(replaced(yard.upload.read_bytes(), path, list_))


@pytest.mark.parametrize("kind", ["ffconcat", "hls"])
def test_without_our_rules_the_canary_would_be_heard(yard: Yard, kind: str) -> None:
    """So the tests above can fail."""
    yard.write(kind, "canary.wav")

    # HLS believes in names; the name is the client's, and a service that keeps it is lost.
    named = yard.upload.rename(yard.folder / f"upload.{'m3u8' if kind == 'hls' else 'wav'}")
    with av.open(named, container_options={"allowed_extensions": "ALL", "extension_picky": "0"}) as container:
        frames = [frame.to_ndarray().ravel() for frame in container.decode(audio=0)]

    assert loudest_hertz(np.concatenate(frames)) == pytest.approx(CANARY_HZ, abs=2.0)


def test_without_our_rules_the_server_would_be_called(yard: Yard) -> None:
    yard.write("hls", TARGETS[3])
    named = yard.upload.rename(yard.folder / "upload.m3u8")

    options = {"protocol_whitelist": "file,http,tcp", "timeout": "1000000", "rw_timeout": "1000000"}
    with suppress(av.error.FFmpegError):
        av.open(named, container_options=options, timeout=3).close()

    assert yard.was_called()
