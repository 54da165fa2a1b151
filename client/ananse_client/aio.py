"""For code that awaits. What is sent and when is in `flows.py` and `calls.py`; here is the socket."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import aclosing
from datetime import datetime
from types import TracebackType
from typing import Any, TypeVar

import anyio
import httpx
from typing_extensions import Unpack

from ananse_client import calls, events, looking
from ananse_client.address import Address, unreachable
from ananse_client.calls import Source, Submission
from ananse_client.flows import Flow, Listen, Patience, Pause, Reply, Send, Steps, Tell
from ananse_client.recordings import OnUpload
from ananse_client.shapes import Delivery, Event, Format, Job, Model, Options, Page, Shaping, Transcript

T = TypeVar("T")


class AsyncClient:
    """As `Client`, for asyncio and trio."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        timeout_s: float = 30.0,
        patience: Patience | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._address = Address.of(url, api_key)
        self._patience = patience or Patience()
        self._http = httpx.AsyncClient(
            headers=self._address.headers,
            timeout=timeout_s,
            transport=transport,
            trust_env=self._address.is_elsewhere,
        )

    async def __aenter__(self) -> "AsyncClient":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @property
    def url(self) -> str:
        return self._address.url

    async def aclose(self) -> None:
        await self._http.aclose()

    async def transcribe(
        self,
        source: Source,
        *,
        timeout_s: float | None = None,
        idempotency_key: str = "",
        on_upload: OnUpload | None = None,
        on_event: Callable[[Event], object] | None = None,
        **options: Unpack[Options],
    ) -> Transcript:
        new = Submission(source, options, idempotency_key, on_upload)
        flow = calls.transcribe(self._patience, new, timeout_s, tells=on_event is not None)
        return await self._run(flow, on_event)

    async def submit(
        self,
        source: Source,
        *,
        idempotency_key: str = "",
        on_upload: OnUpload | None = None,
        **options: Unpack[Options],
    ) -> Job:
        return await self._run(
            calls.submit(self._patience, Submission(source, options, idempotency_key, on_upload))
        )

    async def job(self, job_id: str) -> Job:
        return await self._run(looking.get(self._patience, job_id))

    async def jobs(
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
        return await self._run(calls.listing(self._patience, filters | {"cursor": cursor, "limit": limit}))

    async def wait(self, job_id: str, *, timeout_s: float | None = None) -> Job:
        return await self._run(calls.wait(self._patience, job_id, timeout_s))

    def events(self, job_id: str, *, after: str = "") -> AsyncIterator[Event]:
        return self._tell(events.follow(self._patience, job_id, after))

    async def transcript(self, job_id: str) -> Transcript:
        return await self._run(calls.transcript(self._patience, job_id))

    async def rendered(self, job_id: str, format: Format, **shaping: Unpack[Shaping]) -> str:
        return await self._run(calls.rendered(self._patience, job_id, format, shaping))

    async def cancel(self, job_id: str) -> Job:
        return await self._run(calls.act(self._patience, job_id, "cancel"))

    async def retry(self, job_id: str) -> Job:
        return await self._run(calls.act(self._patience, job_id, "retry"))

    async def delete(self, job_id: str) -> None:
        await self._run(calls.delete(self._patience, job_id))

    async def deliveries(self, job_id: str) -> Sequence[Delivery]:
        return await self._run(calls.deliveries(self._patience, job_id))

    async def models(self) -> Sequence[Model]:
        return await self._run(calls.models(self._patience))

    async def _run(self, flow: Flow[T], told: Callable[[Any], object] | None = None) -> T:
        steps = Steps(flow)
        async with aclosing(_Wire(self._http, self._address)) as wire:
            while (effect := steps.effect) is not None:
                if isinstance(effect, Tell):
                    steps.answer(told(effect.value) if told else None)
                else:
                    await wire.step(steps, effect)
        return steps.value

    async def _tell(self, flow: Flow[None]) -> AsyncIterator[Any]:
        steps = Steps(flow)
        async with aclosing(_Wire(self._http, self._address)) as wire:
            while (effect := steps.effect) is not None:
                if isinstance(effect, Tell):
                    yield effect.value
                    steps.answer(None)
                else:
                    await wire.step(steps, effect)


class _Wire:
    """Carries out what a flow wants; holds the stream it listens to."""

    def __init__(self, http: httpx.AsyncClient, address: Address) -> None:
        self._http = http
        self._address = address
        self._stream: httpx.Response | None = None
        self._lines: AsyncIterator[str] | None = None

    async def step(self, steps: Steps[Any], effect: Send | Pause | Listen) -> None:
        try:
            answer = await self._perform(effect)
        except httpx.HTTPError as error:
            away = unreachable(self._address, error)
            away.__cause__ = error
            steps.fail(away)
            return
        steps.answer(answer)

    async def aclose(self) -> None:
        if self._stream is not None:
            await self._stream.aclose()

    async def _perform(self, effect: Send | Pause | Listen) -> Reply | str | None:
        if isinstance(effect, Pause):
            await anyio.sleep(effect.seconds)
            return None
        if isinstance(effect, Listen):
            return None if self._lines is None else await anext(self._lines, None)
        return await self._send(effect)

    async def _send(self, send: Send) -> Reply:
        request = self._http.build_request(
            send.method,
            self._address.url + send.path,
            params=dict(send.query) or None,
            headers=dict(send.headers),
            json=send.json,
            content=send.form.chunks_async() if send.form else None,
            timeout=self._http.timeout if send.timeout_s is None else send.timeout_s,
        )
        await self.aclose()
        response = await self._http.send(request, stream=True)
        headers = {name.lower(): value for name, value in response.headers.items()}
        if send.listens and response.status_code == 200:
            self._stream, self._lines = response, response.aiter_lines()
            return Reply(response.status_code, headers)
        async with aclosing(response):
            await response.aread()
        return Reply(response.status_code, headers, response.text)
