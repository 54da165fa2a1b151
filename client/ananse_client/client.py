"""For code that waits. What is sent and when is in `flows.py` and `calls.py`; here is the socket."""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import httpx
from typing_extensions import Unpack

from ananse_client import calls, events, looking
from ananse_client.address import Address, unreachable
from ananse_client.calls import Source, Submission
from ananse_client.flows import Flow, Listen, Patience, Pause, Reply, Send, Steps, Tell
from ananse_client.recordings import OnUpload
from ananse_client.shapes import Delivery, Event, Format, Job, Model, Options, Page, Shaping, Transcript

T = TypeVar("T")


class Client:
    """Talks to one service; `url` and `api_key` come from ANANSE_URL and ANANSE_API_KEY when left out.

    May be shared between threads. Every call raises ServiceError and Unreachable, after `patience` is over.
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._address = Address.of(url, api_key)
        self._patience = patience or Patience()
        self._http = httpx.Client(
            headers=self._address.headers,
            timeout=timeout_s,
            transport=transport,
            trust_env=self._address.is_elsewhere,
        )

    def __enter__(self) -> "Client":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        return self._address.url

    def close(self) -> None:
        self._http.close()

    def transcribe(
        self,
        source: Source,
        *,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        on_upload: OnUpload | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Unpack[Options],
    ) -> Transcript:
        """From a file or an address to its transcript. Raises JobError by the job's code, WaitTimeout."""
        new = Submission(source, options, idempotency_key, on_upload)
        flow = calls.transcribe(self._patience, new, timeout_s, tells=on_event is not None)
        return self._run(flow, on_event)

    def submit(
        self,
        source: Source,
        *,
        idempotency_key: str = "",
        on_upload: OnUpload | None = None,
        **options: Unpack[Options],
    ) -> Job:
        """The job is safe when this returns. Sent again by itself, it is still one job."""
        return self._run(
            calls.submit(self._patience, Submission(source, options, idempotency_key, on_upload))
        )

    def job(self, job_id: str) -> Job:
        return self._run(looking.get(self._patience, job_id))

    def jobs(
        self,
        *,
        status: str | None = None,
        model: str | None = None,
        tag: str | None = None,
        created_after: datetime | None = None,
        cursor: str | None = None,
        limit: int | None = None,
    ) -> Page:
        filters = {"status": status, "model": model, "tag": tag, "created_after": created_after}
        return self._run(calls.listing(self._patience, filters | {"cursor": cursor, "limit": limit}))

    def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        """The job once it has ended, however it did. Raises WaitTimeout."""
        return self._run(calls.wait(self._patience, job_id, timeout_s))

    def events(self, job_id: str, *, after: str = "") -> Iterator[Event]:
        """What happens to the job, up to its end; `after` is the id of the last event seen."""
        return self._tell(events.follow(self._patience, job_id, after))

    def transcript(self, job_id: str) -> Transcript:
        return self._run(calls.transcript(self._patience, job_id))

    def rendered(self, job_id: str, format: Format, **shaping: Unpack[Shaping]) -> str:
        """The transcript as text, subtitles or a table."""
        return self._run(calls.rendered(self._patience, job_id, format, shaping))

    def cancel(self, job_id: str) -> Job:
        return self._run(calls.act(self._patience, job_id, "cancel"))

    def retry(self, job_id: str) -> Job:
        """A new job for the recording of one that failed or was canceled."""
        return self._run(calls.act(self._patience, job_id, "retry"))

    def delete(self, job_id: str) -> None:
        self._run(calls.delete(self._patience, job_id))

    def deliveries(self, job_id: str) -> Sequence[Delivery]:
        return self._run(calls.deliveries(self._patience, job_id))

    def models(self) -> Sequence[Model]:
        return self._run(calls.models(self._patience))

    def _run(self, flow: Flow[T], told: Callable[[Any], object] | None = None) -> T:
        steps = Steps(flow)
        with closing(_Wire(self._http, self._address)) as wire:
            while (effect := steps.effect) is not None:
                if isinstance(effect, Tell):
                    steps.answer(told(effect.value) if told else None)
                else:
                    wire.step(steps, effect)
        return steps.value

    def _tell(self, flow: Flow[None]) -> Iterator[Any]:
        steps = Steps(flow)
        with closing(_Wire(self._http, self._address)) as wire:
            while (effect := steps.effect) is not None:
                if isinstance(effect, Tell):
                    yield effect.value
                    steps.answer(None)
                else:
                    wire.step(steps, effect)


class _Wire:
    """Carries out what a flow wants; holds the stream it listens to."""

    def __init__(self, http: httpx.Client, address: Address) -> None:
        self._http = http
        self._address = address
        self._stream: httpx.Response | None = None
        self._lines: Iterator[str] = iter(())

    def step(self, steps: Steps[Any], effect: Send | Pause | Listen) -> None:
        try:
            answer = self._perform(effect)
        except httpx.HTTPError as error:
            away = unreachable(self._address, error)
            away.__cause__ = error
            steps.fail(away)
            return
        steps.answer(answer)

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()

    def _perform(self, effect: Send | Pause | Listen) -> Reply | str | None:
        if isinstance(effect, Pause):
            time.sleep(effect.seconds)
            return None
        if isinstance(effect, Listen):
            return next(self._lines, None)
        return self._send(effect)

    def _send(self, send: Send) -> Reply:
        request = self._http.build_request(
            send.method,
            self._address.url + send.path,
            params=dict(send.query) or None,
            headers=dict(send.headers),
            json=send.json,
            content=send.form.chunks() if send.form else None,
            timeout=self._http.timeout if send.timeout_s is None else send.timeout_s,
        )
        self.close()
        response = self._http.send(request, stream=True)
        headers = {name.lower(): value for name, value in response.headers.items()}
        if send.listens and response.status_code == 200:
            self._stream, self._lines = response, response.iter_lines()
            return Reply(response.status_code, headers)
        with closing(response):
            response.read()
        return Reply(response.status_code, headers, response.text)
