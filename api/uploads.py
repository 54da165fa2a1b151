"""Receives a request's body: streams the recording into a draft of the blob store, hashed on the way, never
whole in memory and never written twice."""

import hashlib
import math
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import chain
from threading import Event, Thread

from flask import Request
from gunicorn.http.errors import ParseException
from werkzeug.exceptions import ClientDisconnected, RequestEntityTooLarge
from werkzeug.sansio import multipart
from werkzeug.sansio.multipart import Data, Epilogue, Field, File, MultipartDecoder, NeedData

from api.durations import HEAD_BYTES
from api.problems import one_invalid
from shared.blob_store import BlobStore, Draft
from shared.errors import (
    IncompleteUpload,
    LengthRequired,
    RequestError,
    StorageFull,
    UnsupportedEncoding,
    UnsupportedMediaType,
    UploadTooLarge,
)

CHUNK_BYTES = 2**17
# How often within the idle time it is looked whether that is over.
_LOOKS = 4
# The form's own boundaries, headers and options, beside the recording.
MOST_FORM_BYTES = 2**20
MOST_FIELD_BYTES = 2**18
MOST_PARTS = 50
# Room the workers and the job store need for what they write while this upload is worked on.
RESERVE_BYTES = 256 * 2**20
_LOOK_AT_ROOM_EVERY = 2**26
_RETRY_FULL_S = 30.0
_MOST_NAME_CHARS = 255

LIST = "[]"
"""Fields named so may come several times; their values are joined by commas."""

FORM = "multipart/form-data"
URLENCODED = "application/x-www-form-urlencoded"


@dataclass(frozen=True, slots=True)
class UploadLimits:
    max_bytes: int
    idle_s: float


@dataclass(frozen=True, slots=True)
class Place:
    """Where the recording is to lie; `name` is the blob's."""

    blobs: BlobStore
    name: str


@dataclass(frozen=True, slots=True)
class Upload:
    """A whole recording, to be kept; `name` is what the client calls it, `head` its first bytes."""

    draft: Draft
    size_bytes: int
    sha256: str
    name: str
    head: bytes = b""


@dataclass(frozen=True, slots=True)
class Received:
    """`fields` are the form's other parts, as text."""

    upload: Upload
    fields: dict[str, str] = field(default_factory=dict)


@contextmanager
def receive(
    request: Request, place: Place, limits: UploadLimits, file_fields: Sequence[str], name: str = ""
) -> Iterator[Received]:
    """The body of the request, gone again at the end of the block unless it was kept.

    A form's file is the part named one of `file_fields`; any other body is the recording, called `name`.
    Raises UploadTooLarge, IncompleteUpload, StorageFull, RequestError.
    """
    _refuse_early(request, place.blobs, limits)
    with Patience(request, limits.idle_s) as patience, place.blobs.draft(place.name) as draft:
        intake = Intake(place.blobs, draft, limits.max_bytes)
        body = _chunks(request, patience)
        if request.mimetype == FORM:
            name, fields = _receive_form(request, body, intake, file_fields)
        else:
            fields = {}
            for chunk in body:
                intake.write(chunk)
        yield Received(intake.finish(_shown_name(name)), fields)


def receive_small(request: Request, idle_s: float) -> bytes:
    """A body that is no recording, whole. Raises UploadTooLarge, IncompleteUpload, LengthRequired."""
    length = request.content_length
    if length is None and "chunked" not in request.headers.get("Transfer-Encoding", "").lower():
        raise LengthRequired()
    body = bytearray()
    if (length or 0) <= MOST_FIELD_BYTES:
        with Patience(request, idle_s) as patience:
            for chunk in _chunks(request, patience):
                body += chunk
                if len(body) > MOST_FIELD_BYTES:
                    break
            else:
                return bytes(body)
    raise UploadTooLarge(f"The limit is {MOST_FIELD_BYTES} bytes.")


class Patience:
    """Ends an upload whose next chunk takes longer than `idle_s` to come, be it byte by byte: from then on
    its connection reads as if the client had gone. A socket's own timeout begins anew with every byte."""

    def __init__(self, request: Request, idle_s: float) -> None:
        self._stream = request.stream
        self._connection: socket.socket | None = request.environ.get("gunicorn.socket")
        self._idle_s = idle_s
        self._until = math.inf
        self._is_over = False
        self._done = Event()
        self._watch = Thread(target=self._run, name="patience", daemon=True)

    def __enter__(self) -> "Patience":
        self._watch.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watch.join()

    def read(self) -> bytes:
        """The next chunk, empty at the end. Time counts in here only: what our disk takes is nobody's fault.

        Raises IncompleteUpload.
        """
        self._until = time.monotonic() + self._idle_s
        try:
            chunk: bytes = self._stream.read(CHUNK_BYTES)
        except (OSError, ClientDisconnected, ParseException) as error:
            raise IncompleteUpload(self._reproach) from error
        self._until = math.inf
        if self._is_over:
            raise IncompleteUpload(self._reproach)
        return chunk

    @property
    def _reproach(self) -> str:
        return "The upload stood still, or nearly so, for too long." if self._is_over else ""

    def _run(self) -> None:
        while not self._done.wait(self._idle_s / _LOOKS):
            if self._connection is not None and time.monotonic() >= self._until:
                self._is_over = True
                with suppress(OSError):
                    self._connection.shutdown(socket.SHUT_RD)
                return


class Intake:
    """Measures a recording on its way into the draft."""

    def __init__(self, blobs: BlobStore, draft: Draft, max_bytes: int) -> None:
        self._blobs = blobs
        self._draft = draft
        self._max_bytes = max_bytes
        self._hash = hashlib.sha256()
        self._size = 0
        self._looked_at_room = 0
        self._head = b""

    def write(self, chunk: bytes) -> None:
        self._size += len(chunk)
        if self._size > self._max_bytes:
            raise UploadTooLarge(f"The limit is {self._max_bytes} bytes.")
        if self._size - self._looked_at_room > _LOOK_AT_ROOM_EVERY:
            self._looked_at_room = self._size
            _refuse_when_full(self._blobs, 0)
        self._head = self._head or chunk[:HEAD_BYTES]
        self._hash.update(chunk)
        self._draft.write(chunk)

    def finish(self, name: str) -> Upload:
        if not self._size:
            raise RequestError("The file is empty.")
        return Upload(self._draft, self._size, self._hash.hexdigest(), name, self._head)


def _refuse_early(request: Request, blobs: BlobStore, limits: UploadLimits) -> None:
    """What can be known before a byte is read."""
    if request.mimetype == URLENCODED:
        raise UnsupportedMediaType(
            "Send the recording as multipart/form-data, or as the body with a Content-Type like audio/wav "
            "or application/octet-stream."
        )
    if request.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        # A few bytes that unfold to gigabytes: the recording is compressed already.
        raise UnsupportedEncoding("Send the body as it is, without Content-Encoding.")
    transfer = request.headers.get("Transfer-Encoding", "").strip().lower()
    if transfer not in ("", "chunked"):
        raise UnsupportedEncoding("Of transfer codings, `chunked` alone is taken.")
    length = request.content_length
    if length is None and not transfer:
        raise LengthRequired()
    overhead = MOST_FORM_BYTES if request.mimetype == FORM else 0
    if length is not None and length > limits.max_bytes + overhead:
        raise UploadTooLarge(f"The limit is {limits.max_bytes} bytes.")
    _refuse_when_full(blobs, length or 0)


def _refuse_when_full(blobs: BlobStore, needed_bytes: int) -> None:
    free = blobs.free_bytes()
    if free is not None and free - needed_bytes < RESERVE_BYTES:
        raise StorageFull(retry_after_s=_RETRY_FULL_S)


def _chunks(request: Request, patience: Patience) -> Iterator[bytes]:
    """The body, up to its declared length: a client that goes away ends the stream without an error."""
    expected, got = request.content_length, 0
    while chunk := patience.read():
        got += len(chunk)
        yield chunk
    if expected is not None and got < expected:
        raise IncompleteUpload(f"{got} of {expected} bytes came.")


def _receive_form(
    request: Request, body: Iterator[bytes], intake: Intake, file_fields: Sequence[str]
) -> tuple[str, dict[str, str]]:
    """The file's name, and the other fields; they may stand before or behind the file."""
    boundary = request.mimetype_params.get("boundary", "").encode("latin-1", "replace")
    if not boundary:
        raise RequestError("The form has no boundary.")
    file_name: str | None = None
    texts: dict[str, bytearray] = {}
    name, is_file = "", False
    decoder = MultipartDecoder(boundary, CHUNK_BYTES + MOST_FORM_BYTES, max_parts=MOST_PARTS)
    for event in _events(decoder, body):
        if isinstance(event, (Field, File)):
            name, is_file = event.name or "", event.name in file_fields
            if name in texts and name.endswith(LIST):
                texts[name] += b","
                continue
            if name in texts or (is_file and file_name is not None):
                raise one_invalid(name, "is given twice")
            if is_file:
                file_name = event.filename if isinstance(event, File) else ""
            elif isinstance(event, File):
                raise one_invalid(name, f"is not a file field; send the recording as {file_fields[0]!r}")
            else:
                texts[name] = bytearray()
        elif isinstance(event, Data) and is_file:
            intake.write(event.data)
        elif isinstance(event, Data) and name in texts:
            texts[name] += event.data
            if sum(map(len, texts.values())) > MOST_FIELD_BYTES:
                raise UploadTooLarge("The form's fields are too large.")
    if file_name is None:
        raise one_invalid(file_fields[0], "is missing")
    return file_name, {name: _text(name, value) for name, value in texts.items()}


def _events(decoder: MultipartDecoder, body: Iterator[bytes]) -> Iterator[multipart.Event]:
    for chunk in chain(body, (None,)):
        yield from _decode(decoder, chunk)


def _decode(decoder: MultipartDecoder, chunk: bytes | None) -> Iterator[multipart.Event]:
    try:
        decoder.receive_data(chunk)
        while not isinstance(event := decoder.next_event(), (NeedData, Epilogue)):
            yield event
    except RequestEntityTooLarge as error:
        raise RequestError("The form has too many parts, or one with endless headers.") from error
    except ValueError as error:
        raise RequestError("The form cannot be read.") from error


def _text(name: str, value: bytearray) -> str:
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise one_invalid(name, "must be UTF-8") from None


def _shown_name(name: str) -> str:
    """The client's file name without folders and control characters: only ever shown, never a path."""
    base = name.replace("\\", "/").rsplit("/", 1)[-1]
    clean = "".join(character for character in base if character.isprintable()).strip()
    return clean[:_MOST_NAME_CHARS] or "audio"
