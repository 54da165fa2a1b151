"""gunicorn's worker, made proof against clients that are slow on purpose: requests get a thread when they
have come, and who makes others wait is waited for elsewhere. See docs/adr/0010."""

import math
import re
import selectors
import socket
import struct
import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from enum import StrEnum
from functools import partial
from typing import Any, cast

from gunicorn.util import write_nonblock
from gunicorn.workers.gthread import ThreadWorker

from api.listening import LAST_ANSWER, HandedOver
from api.outlets import Outlet
from api.parts import EXTENSION, Parts
from api.refusals import refusal
from shared.settings import Settings

_MOST_HEAD_BYTES = 2**15
# Of a body; who has sent so much may have a thread that waits for the rest.
_FIRST_BYTES = 2**14
_MOST_LONG = 256

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,18})[ \t]*(?:\r\n|$)", re.IGNORECASE)
_CHUNKED = re.compile(rb"\r\ntransfer-encoding:", re.IGNORECASE)
_LAST_CHUNK = re.compile(rb"(?:^|\r\n)0+\r\n")
_EXPECTS = re.compile(rb"\r\nexpect:", re.IGNORECASE)
_RECORDING = re.compile(rb"(?:\r\n)?GET [^ ?]*/audio[ ?]")


class Lane(StrEnum):
    """Whose threads work on a request: only in the short lane nobody waits for clients."""

    SHORT = "short"
    UPLOAD = "upload"
    DOWNLOAD = "download"


class Worker(ThreadWorker):  # type: ignore[misc]
    """gunicorn's threads, for requests that have come.

    Left as it is, one of them waits for each client that sends its request byte by byte, and the loop that
    takes connections in waits for clients to hang up: a hundred such clients stop the service. Here the loop
    waits for heads and the first bytes of bodies, which costs nobody anything; the rest of large bodies is
    waited for by threads that do nothing else; and hanging up is done beside it all.
    """

    def init_process(self) -> None:
        # Threads are made when they are needed.
        self._long = {lane: ThreadPoolExecutor(_MOST_LONG, lane) for lane in (Lane.UPLOAD, Lane.DOWNLOAD)}
        self._closing = ThreadPoolExecutor(self.cfg.threads, "closing")
        super().init_process()

    def load_wsgi(self) -> None:
        super().load_wsgi()
        app = self.wsgi.wsgi_app

        def answer(environ: dict[str, Any], start_response: Any) -> Any:
            environ[LAST_ANSWER] = start_response.__self__.force_close
            return app(environ, start_response)

        self.wsgi.wsgi_app = answer

    def enqueue_req(self, conn: Any) -> None:
        """For a connection that is new or has something to read."""
        if lane := self._look(conn):
            threads: Any = self._long.get(lane, self.tpool)
            done = threads.submit(self.handle, conn)
            done.add_done_callback(partial(self.method_queue.defer, self.finish_request, conn))
        else:
            self._wait_for_more(conn)

    def handle(self, conn: Any) -> Any:
        try:
            return super().handle(conn)
        except HandedOver as handed:
            listener = handed.listener
            outlet = Outlet(conn.sock, listener.is_chunked, partial(self._hang_up, conn))
            self._parts.listening.take(listener, outlet)
            return handed

    def finish_request(self, conn: Any, future: "Future[Any]") -> None:
        outcome = None if future.cancelled() or future.exception() else future.result()
        if outcome is False:
            self._hang_up(conn)
        elif not isinstance(outcome, HandedOver):
            super().finish_request(conn, future)

    def _hang_up(self, conn: Any) -> None:
        closed = self._closing.submit(conn.close, graceful=True)
        closed.add_done_callback(lambda _: self.method_queue.defer(self._forget))

    def handle_error(self, req: Any, client: Any, addr: Any, exc: BaseException) -> None:
        """gunicorn's own answers are pages of HTML that repeat what was sent."""
        with suppress(OSError):
            write_nonblock(client, refusal(exc))

    def murder_pending(self) -> None:
        """Who keeps us waiting gets no further: what came by then is all there is."""
        now = time.monotonic() if self.alive else math.inf
        while self.pending_conns and self.pending_conns[0].timeout <= now:
            conn = self.pending_conns[0]
            with suppress(OSError):
                conn.sock.shutdown(socket.SHUT_RD)
            self.on_pending_socket_readable(conn, conn.sock)

    def _wait_for_more(self, conn: Any) -> None:
        conn.timeout = time.monotonic() + self._settings.upload_idle_s
        self.pending_conns.append(conn)
        self.poller.register(conn.sock, selectors.EVENT_READ, partial(self._on_more, conn))

    def _on_more(self, conn: Any, sock: socket.socket) -> None:
        if self._look(conn):
            self.on_pending_socket_readable(conn, sock)

    def _forget(self) -> None:
        self.nr_conns -= 1

    def _look(self, conn: Any) -> Lane | None:
        """Takes what the client has sent by now to where the request is read from later; waits for nothing.

        None when too little has come to work on.
        """
        if not conn.initialized:
            conn.init()
        unreader = conn.parser.unreader
        come = unreader.take_buffered()
        try:
            chunk = _receive(conn.sock, self._settings.upload_idle_s)
            if len(come) > _MOST_HEAD_BYTES and b"\r\n\r\n" not in come:
                conn.sock.shutdown(socket.SHUT_RD)
                chunk = b""
        except OSError:
            chunk = b""
        unreader.unread(come + (chunk or b""))
        # At the end there is nothing to wait for.
        return Lane.SHORT if chunk == b"" else lane_of(come + (chunk or b""), self._settings.max_upload_bytes)

    @property
    def _settings(self) -> Settings:
        """Those of the app that is served, once it is loaded."""
        return self._parts.settings

    @property
    def _parts(self) -> Parts:
        return cast(Parts, self.wsgi.extensions[EXTENSION])


def _receive(connection: socket.socket, patience_s: float) -> bytes | None:
    """What is there, empty at the end; None when there is nothing yet."""
    patience = struct.pack("ll", int(patience_s), 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, patience)
    connection.setblocking(False)
    try:
        return connection.recv(_FIRST_BYTES)
    except BlockingIOError:
        return None


def lane_of(come: bytes, max_upload_bytes: int) -> Lane | None:
    """Where a request goes of which so much has come; None when too little has.

    Generous where the head is odd: whoever reads it next says what is wrong with it.
    """
    head, end, body = come.removeprefix(b"\r\n").partition(b"\r\n\r\n")
    if not end:
        return None
    is_chunked = _CHUNKED.search(head) is not None
    length = _LENGTH.search(head)
    size = int(length[1]) if length else 0
    if len(body) >= size and not is_chunked:
        return Lane.DOWNLOAD if _RECORDING.match(come) else Lane.SHORT
    is_enough = (
        len(body) >= _FIRST_BYTES
        or (is_chunked and _LAST_CHUNK.search(body) is not None)
        # These wait for an answer before they send.
        or _EXPECTS.search(head) is not None
        or size > max_upload_bytes
    )
    return Lane.UPLOAD if is_enough else None
