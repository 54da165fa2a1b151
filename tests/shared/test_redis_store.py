"""The door to Redis when Redis is away, full, read-only or frozen: each has its own answer, within bounds."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from redis.exceptions import ResponseError

from shared.errors import StorageFull, StoreUnavailable
from shared.job_store import JobStore
from shared.ledger import PREPARE, Ledger
from shared.redis_store import RedisStore, connect
from tests.support.jobs import submit
from tests.support.redis_server import find_binary, redis_server

pytestmark = pytest.mark.redis

TIMEOUT_S = 0.1
BACKOFF_S = 5.0


@pytest.fixture
def private_url(redis_url: str) -> Iterator[str]:
    """A server that this test may treat badly. `redis_url` skips where there is no binary."""
    binary = find_binary()
    assert binary is not None
    with redis_server(binary) as url:
        yield url


@contextmanager
def full(store: RedisStore) -> Iterator[None]:
    """Redis as it is when its memory is used up."""
    before = store.client.config_get("maxmemory")["maxmemory"]
    store.client.config_set("maxmemory", 1)
    try:
        yield
    finally:
        store.client.config_set("maxmemory", before)


@contextmanager
def frozen(url: str) -> Iterator[None]:
    """The server takes connections and answers nothing."""
    with connect(url) as client:
        pid = int(client.info("server")["process_id"])
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


def test_keys_stand_under_our_prefix(store: RedisStore) -> None:
    assert store.key("job", "job_1") == "ananse:job:job_1"


@pytest.mark.parametrize("url", ["redis://127.0.0.1:1/0", "unix:///nowhere/redis.sock?db=0"])
def test_a_redis_that_is_not_there_is_unavailable_for_a_while(url: str) -> None:
    with connect(url, retries=0) as client, pytest.raises(StoreUnavailable) as raised:
        JobStore(RedisStore(client)).ping()

    assert raised.value.retry_after_s == 5


def test_a_server_that_died_is_noticed(private_url: str) -> None:
    with connect(private_url, retries=0) as client:
        store = RedisStore(client)
        submit(store)
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)

        with pytest.raises(StoreUnavailable):
            Ledger(store).claim("job_1", PREPARE, "worker")


def test_a_full_redis_takes_no_more_but_still_answers(store: RedisStore) -> None:
    submit(store, "job_1")

    with full(store), pytest.raises(StorageFull) as raised:
        submit(store, "job_2")
    with full(store):
        assert JobStore(store).get("job_1").id == "job_1"

    assert raised.value.retry_after_s == 30
    assert not store.client.keys("*job_2*")


def test_a_read_only_redis_is_unavailable(private_url: str) -> None:
    """What a client sees that holds on to a master which became a replica."""
    with connect(private_url) as client:
        client.replicaof("127.0.0.1", "1")

        with pytest.raises(StoreUnavailable):
            submit(RedisStore(client))


def test_our_own_mistakes_are_not_hidden(store: RedisStore) -> None:
    store.client.set(store.key("job", "job_1"), "not a hash")

    with pytest.raises(ResponseError, match="WRONGTYPE"):
        JobStore(store).get("job_1")


@pytest.mark.parametrize("retries", [0, 1])
@pytest.mark.parametrize("is_connected", [True, False])
def test_a_frozen_redis_keeps_nobody_longer_than_its_bound(
    private_url: str, retries: int, is_connected: bool
) -> None:
    with connect(private_url, timeout_s=TIMEOUT_S, retries=retries) as client:
        store = RedisStore(client)
        if is_connected:
            JobStore(store).ping()
        with frozen(private_url):
            began = time.monotonic()
            with pytest.raises(StoreUnavailable):
                JobStore(store).ping()
            took_s = time.monotonic() - began

        assert took_s < TIMEOUT_S * (retries + 1) + BACKOFF_S
        JobStore(store).ping()


def test_a_script_that_redis_has_forgotten_is_sent_again(store: RedisStore) -> None:
    submit(store, "job_1")

    store.client.script_flush()

    assert submit(store, "job_2").id == "job_2"


def test_a_script_brings_of_the_prelude_only_what_it_uses(store: RedisStore, tmp_path: Path) -> None:
    (tmp_path / "prelude.lua").write_text(
        "local prefix = KEYS[1]\n\nlocal function key(kind)\n  return prefix .. kind\nend\n\n"
        "local unused = nil + 1\n\n-- What the script names calls the rest.\nlocal function name()\n"
        "  return key('name')\nend\n"
    )
    (tmp_path / "tell.lua").write_text("return name()\n")

    assert RedisStore(store.client, scripts=tmp_path).run("tell") == "ananse:name"
