"""The composed service for real: built, started, scaled, killed, rolled over under load, taken down.

Needs `docker` with its compose plugin, and skips without. Prints what it saw (`pytest -s`).
"""

import json
import os
import subprocess
import time
from collections.abc import Iterator

import httpx
import jiwer
import pytest

from tests.deploy.composed import CLIP, Client, Composed, Load, eventually, free_port, has_compose
from tests.support.oracle import references, words
from tests.support.service import SAMPLES
from worker.engine.decoder.sandbox import Guard

pytestmark = [pytest.mark.service, pytest.mark.slow, pytest.mark.timeout(5400)]

PORTS = ("ANANSE_PORT", "ANANSE_FLOWER_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")
PARTS = ("api", "worker", "flower", "redis")
LONG = SAMPLES / "five-minutes.flac"


@pytest.fixture(scope="module")
def composed() -> Iterator[Composed]:
    """Up and healthy; at the end nothing of it is left."""
    if not has_compose():
        pytest.skip("no docker with compose")
    ports = {name: str(free_port()) for name in PORTS}
    environment = os.environ | ports | {"COMPOSE_PROFILES": ""}
    service = Composed("ananse-trial", environment, f"http://127.0.0.1:{ports['ANANSE_PORT']}")
    # What a run that was killed has left.
    service.take_down()
    try:
        service.compose("build", "api", "worker")
        service.say("built")
        service.began = time.monotonic()
        service.compose("up", "-d", "--wait")
        service.say("up, all healthy")
        yield service
    finally:
        service.take_down()
        left = service.left()
    assert left == []


@pytest.fixture
def client(composed: Composed) -> Iterator[Client]:
    client = Client(composed.url)
    yield client
    client.close()


def test_the_first_recording_is_transcribed(composed: Composed, client: Client) -> None:
    job = client.send(CLIP, word_timestamps="true")
    eventually(lambda: client.status(job) == "completed")
    text = client.text(job)

    assert words(text) == words(references()[CLIP.name]["text"])
    composed.say(f"transcribed: {text.strip()[:60]}")


@pytest.mark.parametrize("part", PARTS)
def test_a_container_is_shut_in(composed: Composed, part: str) -> None:
    """As the engine has it, not as the file says."""
    told = composed.inspect(composed.container(part))
    published = [port for ports in told["HostConfig"]["PortBindings"].values() for port in ports or ()]

    assert told["HostConfig"]["ReadonlyRootfs"] is True
    assert told["Config"]["User"].split(":")[0] not in ("", "0", "root")
    assert {port["HostIp"] for port in published} <= {"127.0.0.1"}
    assert told["State"]["Health"]["Status"] == "healthy"
    inside = composed.docker("exec", composed.container(part), "cat", "/proc/self/status")
    status = dict(line.split(":", 1) for line in inside.splitlines())
    assert int(status["CapEff"], 16) == 0
    assert status["NoNewPrivs"].strip() == "1"
    assert status["Seccomp"].strip() == "2"


def test_commands_work_where_the_page_says(composed: Composed) -> None:
    (worker,) = json.loads(composed.compose("exec", "-T", "api", "ananse", "admin", "workers", "--json"))
    assert Guard.SYSTEM_CALLS in worker["guards"]
    composed.say(f"around the decoder: {', '.join(worker['guards'])}")
    for part in ("api", "worker"):
        assert "synthetic-en" in composed.compose("exec", "-T", part, "ananse", "admin", "queues")
        assert composed.compose("exec", "-T", part, "ananse", "webhooks", "list").strip()
    secrets = {composed.compose("exec", "-T", part, "ananse", "webhook-secret") for part in ("api", "worker")}
    assert len(secrets) == 1
    assert secrets.pop().startswith("whsec_")
    assert "hear" in composed.compose("exec", "-T", "api", "ananse", "demo")


def test_a_worker_that_is_stopped_hands_its_job_back(composed: Composed, client: Client) -> None:
    job = client.send(LONG, reuse="off")
    eventually(lambda: client.job(job)["progress"]["done_s"] > 0)
    began = time.monotonic()
    composed.docker("stop", "-t", "40", composed.container("worker"))
    took_s = time.monotonic() - began
    done_s = client.job(job)["progress"]["done_s"]

    composed.say(f"a worker with {done_s:.0f} s of {LONG.name} done stopped within {took_s:.1f} s")
    assert composed.state(composed.container("worker"), "ExitCode") == "0"
    assert client.status(job) != "failed"
    composed.docker("start", composed.container("worker"))
    eventually(lambda: client.status(job) == "completed")
    assert jiwer.wer(words(references()[LONG.name]["text"]), words(client.text(job))) < 0.2
    composed.say("started again, it went on from there and ended")


def test_prometheus_reads_every_part(composed: Composed) -> None:
    composed.compose("--profile", "observe", "up", "-d", "--no-recreate", "--wait", "prometheus")
    url = f"http://127.0.0.1:{composed.environment['PROMETHEUS_PORT']}"
    with httpx.Client(base_url=url, trust_env=False, timeout=60) as prometheus:

        def up() -> set[str]:
            targets = prometheus.get("/api/v1/targets").json()["data"]["activeTargets"]
            return {one["labels"]["job"] for one in targets if one["health"] == "up"}

        def shown(query: str) -> list[str]:
            found = prometheus.get("/api/v1/query", params={"query": query}).json()["data"]["result"]
            return [one["value"][1] for one in found]

        eventually(lambda: up() == {"api", "worker", "flower"})
        eventually(lambda: shown("max(ananse_workers)") == ["1"])
        groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert rules
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    composed.say(f"Prometheus reads API, worker and Flower, and knows {len(rules)} rules")


def test_it_lives_through_a_day(composed: Composed, client: Client) -> None:
    composed.compose("up", "-d", "--no-recreate", "--scale", "worker=3")
    eventually(lambda: client.workers() == 3)
    composed.say("three workers")
    names = [composed.container("worker", number) for number in (1, 2, 3)]

    with Load(composed.url) as load:
        eventually(lambda: len(load.jobs) > 5)
        victim = names[1]
        before = composed.state(victim, "StartedAt")
        # Everything in there but its init, which then ends too; the restart policy brings it back.
        subprocess.run(["docker", "exec", victim, "sh", "-c", "kill -9 -1"], env=composed.environment)
        eventually(lambda: composed.state(victim, "StartedAt") != before)
        composed.say("one worker was killed with -9 and has been started again")
        eventually(lambda: composed.health(victim) == "healthy")
        composed.say(f"it is healthy; {len(load.jobs)} jobs were taken so far")

        for name in [*names, *map(composed.container, ("api", "redis"))]:
            composed.docker("restart", "-t", "40", name)
            eventually(lambda name=name: composed.health(name) == "healthy")  # type: ignore[misc]
            composed.say(f"{name} restarted and healthy")
        taken = len(load.jobs)
        eventually(lambda: len(load.jobs) > taken + 5)

    unfinished = set(load.jobs)

    def all_ended() -> bool:
        unfinished.difference_update(
            [job for job in sorted(unfinished) if client.status(job) not in ("queued", "running")]
        )
        return not unfinished

    eventually(all_ended)
    ends = [client.status(job) for job in load.jobs]
    composed.say(
        f"{len(ends)} jobs taken, {ends.count('completed')} completed; {load.refused} tries repeated"
    )
    assert set(ends) == {"completed"}
    assert len(set(load.jobs)) == len(load.jobs)


def test_a_key_is_made_by_its_own_container(composed: Composed) -> None:
    """The last one here: from then on every request needs one."""
    run = ("--profile", "keys", "run", "--rm", "-T", "keys")
    key = composed.compose(*run, "create", "trial").strip().splitlines()[-1]
    assert "trial" in composed.compose(*run, "list")
    with httpx.Client(base_url=composed.url, trust_env=False, timeout=60) as http:
        eventually(lambda: http.get("/v1/jobs").status_code == 401)
        assert http.get("/v1/jobs", headers={"Authorization": f"Bearer {key}"}).status_code == 200
