"""The Redis of the StatefulSet, started by its own words with a real server."""

import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import pytest
from redis import Redis
from redis.exceptions import AuthenticationError

from tests.deploy.kubernetes.manifests import build, pods
from tests.support.waiting import wait_until

pytestmark = pytest.mark.redis

PASSWORD = "0123abcd" * 4


@pytest.mark.skipif(shutil.which("redis-server") is None, reason="redis-server is not installed")
def test_it_asks_for_the_password_writes_a_log_and_stops_when_told_to() -> None:
    (pod,) = [pod for workload, pod in pods(build("base")) if workload["metadata"]["name"] == "redis"]
    (container,) = pod["containers"]
    # The system's folder for temporary files: a socket's path must be short.
    with tempfile.TemporaryDirectory(prefix="ananse-") as folder:
        home, socket = Path(folder), Path(folder, "redis.sock")
        script = container["args"][0].replace("/run/redis", folder).replace("dir /data", f"dir {folder}")
        # On a socket of the test's own instead of the usual port.
        script = script.replace('save ""', f'save ""\nport 0\nunixsocket {socket}')
        process = subprocess.Popen(
            [*container["command"], script],
            env=os.environ | {"REDISCLI_AUTH": PASSWORD},
            stdout=subprocess.DEVNULL,
        )
        try:
            wait_until(socket.exists)
            with Redis(unix_socket_path=str(socket), password=PASSWORD) as client:
                wait_until(client.ping)
                told = client.config_get("appendonly", "appendfsync", "maxmemory-policy", "save", "maxmemory")
                client.set("kept", 1)
            assert told == {
                "appendonly": "yes",
                "appendfsync": "everysec",
                "maxmemory-policy": "noeviction",
                "save": "",
                "maxmemory": str(2**30),
            }
            with Redis(unix_socket_path=str(socket)) as stranger, pytest.raises(AuthenticationError):
                stranger.ping()
            assert (home / "redis.conf").stat().st_mode & 0o077 == 0
            assert PASSWORD.encode() not in Path(f"/proc/{process.pid}/cmdline").read_bytes()

            process.send_signal(signal.SIGTERM)

            assert process.wait(10) == 0
            assert any(home.glob("appendonlydir/*")) or (home / "appendonly.aof").exists()
        finally:
            process.kill()
            process.wait()
