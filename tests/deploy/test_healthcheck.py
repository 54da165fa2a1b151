import socket
import subprocess
import sys

import pytest

from deploy.healthcheck import is_healthy
from shared.fleet import Fleet, WorkerState
from shared.redis_store import RedisStore
from shared.settings import Settings


@pytest.mark.redis
def test_a_worker_is_healthy_while_its_own_host_beats(settings: Settings, store: RedisStore) -> None:
    assert not is_healthy("worker", settings)
    Fleet(store).beat(WorkerState("other-1", (), {}, host="other"))
    assert not is_healthy("worker", settings)
    Fleet(store).beat(WorkerState("mine-1", (), {}, host=socket.gethostname()))
    assert is_healthy("worker", settings)


@pytest.mark.parametrize("part", ["api", "worker", "flower"])
def test_silence_is_no_health(part: str) -> None:
    settings = Settings(redis_url="redis://127.0.0.1:1/0", port=1, flower_port=1)
    assert not is_healthy(part, settings)


def test_it_loads_nothing_heavy() -> None:
    code = "import sys, deploy.healthcheck; print(*{'torch', 'celery', 'flask', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
