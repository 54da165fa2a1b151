"""Where secrets and content may not be (T24): a service whose every door was told markers is searched for
them, in logs of all processes, Redis, Flower, metrics and the answers to requests that go wrong."""

import json
import re
import socket
import time
from dataclasses import dataclass, field
from ipaddress import ip_network
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest
from redis import Redis

from shared.fleet import Fleet
from shared.job_store import JobStore
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support import flower, secrets
from tests.support.api_server import api_server
from tests.support.redis_server import require_binary, running
from tests.support.waiting import wait_until
from tests.support.worker_context import SECRET
from tests.support.worker_process import PLAIN, worker_process
from tests.worker.receiver import http, receiver

pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]

REDIS_PASSWORD = "marker-redis-password"
SECRETS = (
    REDIS_PASSWORD,
    flower.PASSWORD,
    SECRET.removeprefix("whsec_"),
    *("marker-key", "marker-header", "marker-query", "marker-user", "marker-pass"),
)
CONTENT = ("marker-file", "marker-prompt", "marker-metadata", "marker-tag", "marker-path")
_PAGES = ("/workers", "/tasks", "/broker", "/api/workers?refresh=1", "/api/tasks", "/metrics")

WRONG: dict[str, dict[str, Any]] = {
    "an address with a password": {"webhook_url": "http://marker-user:marker-pass@example.org/"},
    "a signed address that is none": {"webhook_url": "ftp://example.org/?signature=marker-query"},
    "a header that cannot be": {
        "webhook_url": "http://example.org/?signature=marker-query",
        "webhook_auth_header_name": "Host",
        "webhook_auth_header_value": "marker-header",
    },
    "a header's value that cannot be": {
        "webhook_url": "http://example.org/",
        "webhook_auth_header_name": "X-Hook",
        "webhook_auth_header_value": "marker-header\n",
    },
    "a prompt that is too long": {"prompt": "marker-prompt " * 100},
    "metadata that is no object": {"metadata": '["marker-metadata"]'},
    "metadata that is too much": {"metadata": json.dumps({"a": "marker-metadata" * 100})},
    "a tag with a control character": {"tag": "marker-tag\x01"},
    "a model there is not": {"model": "marker-tag"},
    "a language there is not": {"language": "marker-tag"},
    "a number that is none": {"priority": "marker-tag"},
}


@dataclass
class Traces:
    """What is left of a job's life. `keys` are Redis's, each with what it holds."""

    job_id: str
    said: tuple[str, ...]
    keys: dict[str, str]
    pages: dict[str, str]
    answers: dict[str, str]
    logs: dict[str, str] = field(default_factory=dict)


@pytest.fixture(scope="module")
def traces(tmp_path_factory: pytest.TempPathFactory) -> Traces:
    folder = tmp_path_factory.mktemp("secrets")
    port, metrics_port = free_port(), free_port()
    with running(require_binary(), "--port", str(port)) as redis:
        with Redis.from_url(redis.url) as everybody:
            everybody.config_set("requirepass", REDIS_PASSWORD)
        settings = Settings(
            redis_url=f"redis://:{REDIS_PASSWORD}@127.0.0.1:{port}/0",
            blob_url=f"file://{folder}/blobs",
            state_dir=folder / "state",
            log_level="DEBUG",
        )
        for_worker = Settings(
            **settings.model_dump(exclude_unset=True),
            webhook_allow=(ip_network("127.0.0.0/8"),),
            webhook_secret=SECRET,
            metrics_port=metrics_port,
            sweep_s=0.2,
        )
        found = _live(settings, for_worker, folder)
    found.logs |= {name: (folder / f"{name}.log").read_text() for name in ("worker", "flower")}
    return found


def _live(settings: Settings, for_worker: Settings, folder: Path) -> Traces:
    with (
        connect(settings.redis_url) as client,
        receiver(http(200)) as hook,
        flower.flower(settings, folder / "flower.log") as watcher,
        worker_process(for_worker, Fleet(RedisStore(client)), folder / "worker.log", PLAIN),
        api_server(settings) as server,
        httpx.Client(base_url=server.url, timeout=60, headers={"X-Api-Key": "marker-key"}) as caller,
    ):
        job = secrets.submit(caller, hook.url(path=""))
        wait_until(lambda: JobStore(RedisStore(client)).get(job["id"]).webhook_status == "delivered", 60)
        wait_until(lambda: "ananse.deliver" in watcher("/api/tasks"), 60)
        said = caller.get(f"{job['links']['transcript']}?format=text").text.split()
        answers = {name: _refused(caller, fields) for name, fields in WRONG.items()}
        tasks = json.loads(watcher("/api/tasks"))
        pages = {path: watcher(path) for path in (*_PAGES, *(f"/task/{number}" for number in tasks))}
        pages["the API's metrics"] = caller.get("/metrics").text
        pages["the worker's metrics"] = httpx.get(
            f"http://127.0.0.1:{for_worker.metrics_port}/metrics", trust_env=False
        ).text
        found = Traces(job["id"], tuple(said), dump(client), pages, answers)
    found.logs["api"] = "".join(server.log)
    return found


def _refused(caller: httpx.Client, fields: dict[str, Any]) -> str:
    answer = caller.post(
        "/v1/jobs",
        files={"file": (secrets.FILE_NAME, b"sound", "audio/wav")},
        data=fields,
        headers={"Authorization": "Bearer marker-key", "Idempotency-Key": f"marker-key-{time.time()}"},
    )
    assert 400 <= answer.status_code < 500, fields
    return answer.text + str(answer.headers)


def dump(client: "Redis") -> dict[str, str]:
    """Everything, as text."""
    readers: dict[str, Any] = {
        "string": client.get,
        "hash": client.hgetall,
        "set": client.smembers,
        "list": lambda key: client.lrange(key, 0, -1),
        "zset": lambda key: client.zrange(key, 0, -1, withscores=True),
        "stream": client.xrange,
    }
    return {key: str(readers[client.type(key)](key)) for key in client.scan_iter(count=1000)}


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        return int(free.getsockname()[1])


def words_in(text: str, words: tuple[str, ...]) -> set[str]:
    return {word for word in words if word in text}


def spoken_in(text: str, said: tuple[str, ...]) -> list[str]:
    """Words that follow each other as they were said, whatever stands between: one alone may be part of a
    number or an id by chance."""
    return [f"{a} {b}" for a, b in pairwise(said) if re.search(rf"{a}\W+{b}", text)]


@pytest.mark.parametrize("who", ["api", "worker", "flower"])
def test_no_log_has_any(traces: Traces, who: str) -> None:
    assert traces.logs[who] or who == "flower"
    assert len(traces.said) >= 8
    assert not words_in(traces.logs[who], SECRETS + CONTENT)
    assert not spoken_in(traces.logs[who], traces.said)


def test_no_page_of_flower_and_no_metric_has_any(traces: Traces) -> None:
    assert len(traces.pages) > len(_PAGES) + 3
    assert all(traces.pages.values())
    for name, page in traces.pages.items():
        assert not words_in(page, SECRETS + CONTENT), name
        assert not spoken_in(page, traces.said), name


def test_no_answer_to_what_went_wrong_repeats_it(traces: Traces) -> None:
    for name, answer in traces.answers.items():
        assert not words_in(answer, SECRETS + CONTENT), name


def test_redis_has_them_in_what_is_of_the_job_alone(traces: Traces) -> None:
    ours = {key: held for key, held in traces.keys.items() if traces.job_id in key}
    assert words_in("".join(ours.values()), CONTENT) == set(CONTENT), "nothing was looked at"
    assert spoken_in("".join(ours.values()), traces.said), "nothing was looked at"

    for key, held in traces.keys.items() - ours.items():
        assert not words_in(held, SECRETS + CONTENT), key
        assert not spoken_in(held, traces.said), key


def test_redis_has_no_secret_it_does_not_need(traces: Traces) -> None:
    """Only what a delivery is sent with: the receiver's whole address, and the value of its header."""
    for key, held in traces.keys.items():
        assert words_in(held, SECRETS) <= {"marker-header", "marker-query"}, key
