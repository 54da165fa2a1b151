"""A real RabbitMQ for the tests: a node of its own in a folder of its own, on loopback only."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from tests.support.waiting import wait_until

_SCRIPTS = ("/usr/lib/rabbitmq/bin/rabbitmq-server",)
_START_S = 120.0
_HEADER = b"AMQP\x00\x00\x09\x01"


def find_rabbitmq() -> Path | None:
    """Debian's wrapper in the path changes user and folders; the script that it calls does not."""
    found = [*map(Path, _SCRIPTS), *filter(None, [shutil.which("rabbitmq-server")])]
    return next((Path(one) for one in found if Path(one).exists()), None)


class RabbitServer:
    """A broker that may be killed and started again on the same port."""

    def __init__(self, script: Path, folder: Path) -> None:
        self._script = script
        self._folder = folder
        self.port, self._distribution_port, self._epmd_port = _free_port(), _free_port(), _free_port()
        # Its name server: one that the node starts would outlive it.
        self._names = subprocess.Popen(["epmd", "-port", str(self._epmd_port), "-address", "127.0.0.1"])
        self.start()

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}//"

    def start(self) -> None:
        with Path(self._folder, "rabbitmq.log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(self._script)], env=self._environment(), stdout=log, stderr=log, start_new_session=True
            )
        wait_until(self._answers, _START_S)

    def kill(self) -> None:
        """kill -9 of the node and of all it started."""
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()

    def close(self) -> None:
        self.kill()
        self._names.kill()
        self._names.wait()

    def _environment(self) -> dict[str, str]:
        folder = str(self._folder)
        return dict(os.environ) | {
            "HOME": folder,
            "RABBITMQ_NODENAME": f"ananse-{self.port}@localhost",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(self._distribution_port),
            "RABBITMQ_MNESIA_BASE": folder,
            "RABBITMQ_LOG_BASE": folder,
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/enabled_plugins",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq",
            "RABBITMQ_PID_FILE": f"{folder}/rabbitmq.pid",
            "ERL_EPMD_PORT": str(self._epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }

    def _answers(self) -> bool:
        assert self._process.poll() is None, Path(self._folder, "rabbitmq.log").read_text()[-2000:]
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(_HEADER)
                return bool(connection.recv(1))
        except OSError:
            return False


@contextmanager
def rabbitmq() -> Iterator[RabbitServer]:
    """Skips where RabbitMQ is not installed: it is not the broker that comes with the service."""
    script = find_rabbitmq()
    if script is None or shutil.which("epmd") is None:
        pytest.skip("no rabbitmq-server is installed")
    with tempfile.TemporaryDirectory(prefix="ananse-rabbitmq-", ignore_cleanup_errors=True) as folder:
        server = RabbitServer(script, Path(folder))
        try:
            yield server
        finally:
            server.close()


def _free_port() -> int:
    with closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])
