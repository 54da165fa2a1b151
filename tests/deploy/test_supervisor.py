import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from deploy.errors import EXIT_CONFIGURATION, StartError, StopRequested
from deploy.processes import Service
from deploy.supervisor import Backoff, Supervisor

QUICK = Backoff(first_s=0.01, longest_s=0.05)


class Said:
    """Collects what the supervisor tells."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, line: str) -> None:
        self.lines.append(line)

    def __contains__(self, text: str) -> bool:
        return any(text in line for line in self.lines)


@pytest.fixture
def said() -> Said:
    return Said()


@pytest.fixture
def supervisor(tmp_path: Path, said: Said) -> Iterator[Supervisor]:
    with Supervisor(tmp_path, say=said, backoff=QUICK) as supervisor:
        yield supervisor


def python(name: str, code: str, grace_s: float = 5.0) -> Service:
    return Service(name, (sys.executable, "-S", "-u", "-c", code), os.environ, grace_s=grace_s)


SLEEP = "import time; print('up'); time.sleep(60)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); " + SLEEP


def test_pauses_double_up_to_the_longest() -> None:
    backoff = Backoff()
    assert [backoff.pause_s(failures) for failures in range(1, 8)] == [1, 2, 4, 8, 16, 30, 30]
    assert backoff.pause_s(10_000) == 30


def test_starts_again_what_dies(supervisor: Supervisor, said: Said) -> None:
    supervisor.start(python("one", SLEEP))
    supervisor.settle()
    first = supervisor.pid("one")
    assert first
    os.kill(first, signal.SIGKILL)
    supervisor.watch(until=lambda: supervisor.pid("one") not in (None, first))
    assert "one ended (SIGKILL" in said


def test_starts_again_as_often_as_it_takes_once_settled(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(python("brief", f"open({str(tmp_path / 'starts')!r}, 'a').write('x')"))
    supervisor.settle()
    supervisor.watch(until=lambda: _size(tmp_path / "starts") >= 5)


def test_gives_up_on_what_never_came_up(supervisor: Supervisor) -> None:
    supervisor.start(python("broken", "print('no such luck'); raise SystemExit(3)"))
    with pytest.raises(StartError, match=r"broken ended \(exit code 3.*last words: no such luck"):
        supervisor.watch(until=lambda: False)


def test_repeats_the_sentence_of_a_child_that_cannot_be_helped(supervisor: Supervisor) -> None:
    code = f"print('noise'); print('ananse: no model'); print('more'); raise SystemExit({EXIT_CONFIGURATION})"
    supervisor.start(python("worker", code))
    supervisor.settle()
    with pytest.raises(StartError, match=r"^no model$"):
        supervisor.watch(until=lambda: False)


def test_says_so_when_a_command_cannot_be_run(supervisor: Supervisor) -> None:
    supervisor.start(Service("ghost", ("/no/such/command",), os.environ))
    with pytest.raises(StartError, match="/no/such/command cannot be run"):
        supervisor.watch(until=lambda: False)


def test_stops_the_last_started_first(supervisor: Supervisor, tmp_path: Path) -> None:
    ends = tmp_path / "ends"
    for name in ("a", "b", "c"):
        code = (
            "import signal, sys, time\n"
            f"def end(*_): open({str(ends)!r}, 'a').write({name!r}); sys.exit()\n"
            f"signal.signal(signal.SIGTERM, end)\n{SLEEP}"
        )
        supervisor.start(python(name, code))
    supervisor.watch(until=lambda: all(_log(tmp_path, name) == "up\n" for name in ("a", "b", "c")))
    supervisor.stop()
    assert ends.read_text() == "cba"


def test_a_crew_is_told_to_stop_all_at_once(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    told = tmp_path / "told"
    for name in ("a", "b"):
        # Each leaves once the other has been told as well.
        code = (
            "import os, signal, sys, time\n"
            f"def end(*_):\n    open({str(told)!r}, 'a').write({name!r})\n"
            f"    while os.path.getsize({str(told)!r}) < 2: time.sleep(0.01)\n    sys.exit()\n"
            f"signal.signal(signal.SIGTERM, end)\n{SLEEP}"
        )
        supervisor.start(replace(python(name, code, grace_s=20), crew="hands"))
    supervisor.watch(until=lambda: all(_log(tmp_path, name) == "up\n" for name in ("a", "b")))
    supervisor.stop()
    assert sorted(told.read_text()) == ["a", "b"]
    assert "did not stop" not in said


def test_without_a_folder_nothing_is_kept(said: Said) -> None:
    with Supervisor(None, say=said, show=lambda name, line: said(line), backoff=QUICK) as supervisor:
        supervisor.start(python("one", "print('up'); raise SystemExit(3)"))
        supervisor.settle()
        supervisor.watch(until=lambda: "one ended (exit code 3)" in said and "up" in said)


def test_kills_what_does_not_stop_in_time(supervisor: Supervisor, said: Said, tmp_path: Path) -> None:
    supervisor.start(python("mule", STUBBORN, grace_s=0.1))
    supervisor.watch(until=lambda: _log(tmp_path, "mule") == "up\n")
    pid = supervisor.pid("mule")
    assert pid
    supervisor.stop()
    assert not psutil.pid_exists(pid)
    assert "mule did not stop" in said


def test_a_second_signal_does_not_wait(supervisor: Supervisor, tmp_path: Path) -> None:
    supervisor.start(python("mule", STUBBORN, grace_s=60))
    supervisor.watch(until=lambda: _log(tmp_path, "mule") == "up\n")
    signal.raise_signal(signal.SIGINT)
    with pytest.raises(StopRequested):
        supervisor.watch(until=lambda: False)
    signal.raise_signal(signal.SIGINT)
    supervisor.stop()


def test_leaves_no_grandchild_behind(supervisor: Supervisor, tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time\n"
        f"print(subprocess.Popen([sys.executable, '-S', '-c', {STUBBORN!r}]).pid); time.sleep(60)"
    )
    supervisor.start(python("parent", code))
    supervisor.watch(until=lambda: _log(tmp_path, "parent").count("\n") >= 2)
    grandchild = next(line for line in _log(tmp_path, "parent").split() if line.isdigit())
    process = psutil.Process(int(grandchild))
    supervisor.stop()
    assert _is_dead(process)


def test_signal_handlers_are_given_back(tmp_path: Path, said: Said) -> None:
    before = signal.getsignal(signal.SIGINT)
    with Supervisor(tmp_path, say=said):
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_shows_output_with_the_name_in_front(tmp_path: Path, said: Said) -> None:
    with Supervisor(tmp_path, say=said, show=lambda name, line: said(f"{name} | {line}")) as supervisor:
        supervisor.start(python("one", SLEEP))
        supervisor.watch(until=lambda: "one | up" in said)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux ties a child's life to its parent's")
def test_children_die_with_a_killed_supervisor(tmp_path: Path) -> None:
    script = (
        "import os, sys; from pathlib import Path; from deploy.processes import Service\n"
        "from deploy.supervisor import Supervisor\n"
        f"with Supervisor(Path({str(tmp_path)!r}), say=print) as supervisor:\n"
        f"    supervisor.start(Service('child', (sys.executable, '-S', '-c', {STUBBORN!r}), os.environ))\n"
        "    print(supervisor.pid('child'), flush=True)\n"
        "    supervisor.watch(until=lambda: False)\n"
    )
    with psutil.Popen([sys.executable, "-c", script], stdout=-1) as parent:
        assert parent.stdout
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    assert _is_dead(child)


def _is_dead(process: psutil.Process) -> bool:
    """Within a moment; whoever inherits an orphan may never reap it, so a zombie counts."""
    gone, _ = psutil.wait_procs([process], timeout=10)
    return bool(gone) or process.status() == psutil.STATUS_ZOMBIE


def _log(folder: Path, name: str) -> str:
    return (folder / f"{name}.log").read_text()


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
