"""Redis Cluster, as docs/scaling.md tells of it: the ledger fits into one of its slots, and into no more."""

import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from redis import Redis, RedisCluster
from redis.exceptions import RedisError, ResponseError

from shared.fleet import Fleet, WorkerState
from shared.ledger import PREPARE, PREPARE_QUEUE, Ledger
from shared.redis_store import RedisStore
from tests.support.jobs import submit
from tests.support.redis_server import require_binary
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.calm]

SLOTS = 16_384
START_S = 30.0


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """Two masters with half of the slots each."""
    ports = [free_port(), free_port()]
    nodes = [start(port, tmp_path_factory.mktemp(f"node-{port}")) for port in ports]
    try:
        clients = [Redis(port=port) for port in ports]
        for number, client in enumerate(clients):
            wait_until(lambda client=client: answers(client), START_S)
            half = SLOTS // 2
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * half, number * half + half - 1)
        clients[0].execute_command("CLUSTER", "MEET", "127.0.0.1", ports[1])
        for client in clients:
            wait_until(lambda client=client: is_whole(client), START_S)
            client.close()
        with closing(RedisCluster(host="127.0.0.1", port=ports[0], decode_responses=True)) as whole:
            yield whole
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def start(port: int, folder: Path) -> "subprocess.Popen[bytes]":
    command = [str(require_binary()), "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder)]
    more = ["--cluster-enabled", "yes", "--save", "", "--loglevel", "warning"]
    return subprocess.Popen([*command, *more], stdout=subprocess.DEVNULL)


def free_port() -> int:
    """The node's bus is at 10,000 above it."""
    while True:
        with closing(socket.socket()) as one:
            one.bind(("127.0.0.1", 0))
            if (port := int(one.getsockname()[1])) < 55_000:
                return port


def answers(client: Redis) -> bool:
    try:
        return bool(client.ping())
    except RedisError:
        return False


def is_whole(client: Redis) -> bool:
    told = client.execute_command("CLUSTER", "INFO")
    text = told.decode() if isinstance(told, bytes) else str(told)
    return "cluster_state:ok" in text and "cluster_known_nodes:2" in text


def test_keys_of_many_slots_are_refused(cluster: RedisCluster) -> None:
    """A script may touch keys of its own node only, and one act of the ledger touches the job, its step, its
    client's line and the queue's sums."""
    with pytest.raises(ResponseError, match="non local key"):
        submit_a_few(RedisStore(cluster))


def submit_a_few(store: RedisStore) -> None:
    """One alone may happen to have all its keys on one node."""
    for number in range(8):
        submit(store, f"job_{number}")


def test_under_one_hash_tag_all_of_it_works_on_one_node(cluster: RedisCluster) -> None:
    store = RedisStore(cluster, prefix="{ananse}:")
    submit(store)
    Fleet(store).beat(WorkerState("w-1", (), {PREPARE_QUEUE: 1}))

    assert [hint.job_id for hint in Ledger(store).dispatch(PREPARE_QUEUE, 1, hint_s=20)] == ["job_1"]
    assert Ledger(store).claim("job_1", PREPARE, "w-1").is_held
