"""What a decoder that has been taken over can still do: with all walls, with one at a time, with those that
are left where the kernel grants no namespaces."""

import json
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.ordinary_user import can_be_had, ordinary_user
from worker.engine.decoder.sandbox import Guard

INMATE = Path(__file__).parent / "inmate.py"
ALL = list(Guard)
WITHOUT_NAMESPACES = [Guard.NO_PRIVILEGES, Guard.SYSTEM_CALLS]

needs_users = pytest.mark.skipif(not can_be_had(), reason="no user namespaces on this machine")


@dataclass(frozen=True, slots=True)
class Told:
    held: list[str]
    open: list[str]


class Prison:
    """A file worth stealing, and a listener that must never be called."""

    def __init__(self, folder: Path, listener: socket.socket) -> None:
        self._folder = folder
        self._listener = listener
        self.secret = folder / "secret"
        self.secret.write_text("sesame")
        self.secret.with_name("secret.spare").write_text("sesame")

    def hold(self, walls: list[str] | None = None, become: Sequence[str] = ()) -> Told:
        """`walls`: None for the whole of `seal`."""
        cell = self._folder / "cell"
        cell.mkdir()
        cell.chmod(0o711)
        asked = {
            "walls": walls,
            "folder": str(cell),
            "file": str(self.secret),
            "address": self._listener.getsockname(),
        }
        done = subprocess.run(
            [*become, sys.executable, "-I", "-B", str(INMATE), json.dumps(asked)],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        said = json.loads(done.stdout)
        return Told(said["held"], said["open"])

    def was_called(self) -> bool:
        self._listener.settimeout(0)
        try:
            self._listener.accept()[0].close()
        except BlockingIOError:
            return False
        return True


@pytest.fixture
def prison(tmp_path: Path) -> Iterator[Prison]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield Prison(tmp_path, listener)


def test_without_walls_every_way_but_one_up_is_open(prison: Prison) -> None:
    """So the ways are ways: what is closed below is closed by the walls."""
    told = prison.hold(walls=[])

    assert {"read a file", "write a file", "connect", "start a program", "fork"} <= set(told.open)
    assert {"signal the worker", "run code it wrote", "list a folder"} <= set(told.open)
    assert ("new namespaces" in told.open) is can_be_had()
    assert prison.was_called()


def test_sealed_there_is_no_way_out(prison: Prison) -> None:
    told = prison.hold()

    assert told.open == []
    assert Guard.SYSTEM_CALLS in told.held
    assert not prison.was_called()


@needs_users
def test_an_ordinary_user_is_sealed_as_well(prison: Prison) -> None:
    assert prison.hold(become=ordinary_user()) == Told(ALL, [])
    assert not prison.was_called()


@needs_users
def test_where_there_are_no_namespaces_the_other_walls_hold(prison: Prison) -> None:
    told = prison.hold(become=ordinary_user(may_make_namespaces=False))

    assert told == Told(WITHOUT_NAMESPACES, [])
    assert not prison.was_called()


@needs_users
@pytest.mark.parametrize(
    ("walls", "closed"),
    [
        (["namespaces"], {"connect", "trace the worker"}),
        (["namespaces", "empty_root"], {"read a file", "write a file", "write here", "list a folder"}),
        (["namespaces", "no_privileges"], {"mount", "become root", "use capabilities"}),
        (["no_privileges", "system_calls"], {"connect", "fork", "start a program", "signal the worker"}),
        (["no_privileges", "system_calls"], {"run code it wrote", "read a file", "new namespaces"}),
    ],
    ids=lambda given: "+".join(given) if isinstance(given, list) else None,
)
def test_what_each_wall_closes(prison: Prison, walls: list[str], closed: set[str]) -> None:
    assert closed.isdisjoint(prison.hold(walls, ordinary_user()).open)
