"""What a scrape of the API costs, with few and with many jobs: `python -m benchmarks.metrics`."""

import statistics
import tempfile
import time
from pathlib import Path

import httpx

from api.ledger_view import FRESH_S
from shared.fleet import Fleet, WorkerState
from shared.ledger import DELIVER_QUEUE, LONG_PREPARE_QUEUE, PREPARE_QUEUE
from shared.models import Abilities, ModelCard, long_queue_of, queue_of
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import ApiServer, api_server
from tests.support.jobs import submit
from tests.support.redis_server import redis_server, require_binary

MODEL = "synthetic-en"
CASES = ((0, 1, 1), (10_000, 1, 1), (10_000, 1_000, 1), (10_000, 1_000, 200))
LOOKS = 10
SLOTS = {
    PREPARE_QUEUE: 2,
    LONG_PREPARE_QUEUE: 2,
    DELIVER_QUEUE: 4,
    queue_of(MODEL): 8,
    long_queue_of(MODEL): 8,
}


def main() -> None:
    print("jobs waiting  tenants  workers   script in Redis   scrape: median  longest   after 2 s: median")
    with tempfile.TemporaryDirectory() as folder, redis_server(require_binary()) as url:
        settings = Settings(redis_url=url, blob_url=f"file://{folder}/blobs", state_dir=Path(folder))
        with api_server(settings) as api, connect(url) as client:
            for case in CASES:
                _measure(RedisStore(client), api, *case)


def _measure(store: RedisStore, api: ApiServer, jobs: int, tenants: int, workers: int) -> None:
    store.client.flushdb()
    for number in range(jobs):
        submit(store, f"job_{number}", tenant=f"tenant-{number % tenants}", model=MODEL, audio_s=10)
    for number in range(workers):
        Fleet(store).beat(_worker(f"worker-{number}"))
    script_us = _script_us(store)
    cached, fresh = _scrapes_ms(api, 0.0), _scrapes_ms(api, FRESH_S)
    print(
        f"{jobs:12} {tenants:8} {workers:8} {script_us:12.0f} us {statistics.median(cached):15.1f} ms "
        f"{max(cached):5.1f} ms {statistics.median(fresh):20.1f} ms",
        flush=True,
    )


def _script_us(store: RedisStore) -> float:
    store.client.config_resetstat()
    for _ in range(LOOKS):
        store.run("view")
    return float(store.client.info("commandstats")["cmdstat_evalsha"]["usec_per_call"])


def _scrapes_ms(api: ApiServer, pause_s: float) -> list[float]:
    taken = []
    with httpx.Client(timeout=30) as client:
        client.get(f"{api.url}/metrics")
        for _ in range(LOOKS):
            time.sleep(pause_s)
            began = time.perf_counter()
            client.get(f"{api.url}/metrics").raise_for_status()
            taken.append(1000 * (time.perf_counter() - began))
    return taken


def _worker(name: str) -> WorkerState:
    abilities = Abilities(("en",), ("transcribe",), True, True, True, True)
    card = ModelCard(MODEL, "models/synthetic-en", "r1", "cpu", "float32", 1, abilities)
    return WorkerState(name, (card,), SLOTS, rtfx={MODEL: 9.0})


if __name__ == "__main__":
    main()
