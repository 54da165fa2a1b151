"""What the pages tell a user to type is typed: their blocks run as they stand, on a real service with the
bundled model. Addresses and ids are put in; what cannot run here is named, so that nothing is left out."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import av
import httpx
import nbformat
import pytest
from nbclient import NotebookClient

from shared.fleet import Fleet
from shared.redis_store import RedisStore, connect
from shared.settings import Settings
from tests.support.api_server import api_server
from tests.support.redis_server import redis_server, require_binary
from tests.support.service import SAMPLES
from tests.support.waiting import wait_until
from tests.support.worker_process import environment, worker_process

pytestmark = [
    pytest.mark.redis,
    pytest.mark.service,
    pytest.mark.model,
    pytest.mark.slow,
    pytest.mark.calm,
]

ROOT = Path(__file__).parents[1]
RECIPES, CLIENT, README, FACES = (
    ROOT / name for name in ("docs/recipes.md", "client/README.md", "README.md", "docs/faces.md")
)
NOTEBOOK = ROOT / "docs" / "quickstart.ipynb"
HERE = "http://127.0.0.1:8000"
NOT_HERE = {
    "aws": "an account with S3",
    "make": "tests/deploy/test_first_run.py does it",
    "ANANSE_MODELS": "weights from the hub",
    "ananse doctor twi": "weights from the hub",
    "ananse doctor openai": "weights from the hub",
    "ananse transcribe asem.mp3": "weights from the hub",
    "pip install": "it is installed",
    "export": "the test sets them",
}
"""Commands that are not run, by their beginning, and why."""
_END_S = 240
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder with a user's recordings, and the commands as a user has them."""

    folder: Path
    url: str
    variables: dict[str, str]

    def shell(self, script: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            ["bash", "-euo", "pipefail", "-c", self._here(script)],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=_END_S,
        )

    def begin(self, script: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            ["bash", "-euo", "pipefail", "-c", self._here(script)],
            cwd=self.folder,
            env=self.variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            # Tests that run in the background of a shell ignore it, and their children would.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def python(self, code: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", self._here(code)],
            cwd=self.folder,
            env=self.variables,
            capture_output=True,
            text=True,
            timeout=_END_S,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def _here(self, text: str) -> str:
        return text.replace(HERE, self.url).replace(".venv/bin/ananse", "ananse")


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder, home = tmp_path_factory.mktemp("desk"), tmp_path_factory.mktemp("home")
    with redis_server(require_binary()) as redis_url, connect(redis_url) as redis:
        settings = Settings(
            redis_url=redis_url,
            blob_url=f"file://{home}/blobs",
            state_dir=home / "state",
            webhook_allow=("127.0.0.0/8",),  # type: ignore[arg-type]
        )
        with (
            api_server(settings) as server,
            worker_process(settings, Fleet(RedisStore(redis)), home / "worker.log"),
        ):
            _lay_out(folder)
            variables = environment(settings) | {
                "ANANSE_URL": server.url,
                "HOME": str(home),
                "XDG_STATE_HOME": str(home),
                "PATH": f"{_commands(home)}:{os.environ['PATH']}",
                "PYTHONPATH": f"{ROOT}:{ROOT / 'client'}",
                "PYTHONUNBUFFERED": "1",
            }
            yield Desk(folder, server.url, variables)


def _lay_out(folder: Path) -> None:
    """The recordings that the pages speak of."""
    (folder / "models").symlink_to(ROOT / "models")
    for name in ("recordings", "films", "inbox"):
        (folder / name).mkdir()
    for source, place in (
        ("short-1.flac", "talk.mp3"),
        ("short-2.flac", "film.mkv"),
        ("short-1.flac", "recordings/one.mp3"),
        ("short-2.flac", "recordings/two.wav"),
        ("short-3.flac", "films/three.mkv"),
    ):
        _converted(SAMPLES / source, folder / place)


def _converted(source: Path, to: Path) -> None:
    codec = {".mp3": "libmp3lame", ".wav": "pcm_s16le", ".mkv": "flac"}[to.suffix]
    with av.open(str(source)) as read, av.open(str(to), "w") as written:
        stream = written.add_stream(codec, rate=16_000, layout="mono")
        for frame in read.decode(audio=0):
            written.mux(stream.encode(frame))
        written.mux(stream.encode(None))


def _commands(home: Path) -> Path:
    """`ananse` and `python`, wherever the tests run from."""
    folder = home / "bin"
    folder.mkdir()
    for name, command in (("ananse", "-m deploy.cli"), ("python", "")):
        path = folder / name
        path.write_text(f'#!/bin/sh\nexec {sys.executable} {command} "$@"\n')
        path.chmod(0o755)
    return folder


def blocks(page: Path, kind: str, heading: str = "") -> list[str]:
    text = page.read_text()
    if heading:
        text = text.partition(f"## {heading}\n")[2].partition("\n## ")[0]
        assert text, heading
    return [body for found, body in _BLOCK.findall(text) if found == kind]


def commands(page: Path, heading: str = "") -> list[str]:
    lines = "\n".join(blocks(page, "console", heading)).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def runs_here(command: str) -> bool:
    return not any(command.startswith(name) for name in NOT_HERE)


def test_every_command_of_the_pages_is_run_or_named() -> None:
    told = [*commands(RECIPES), *commands(CLIENT), *commands(README)]

    for name in NOT_HERE:
        assert any(command.startswith(name) for command in [*told, *blocks(README, "bash")]), name


def test_the_first_three_requests(desk: Desk) -> None:
    script = next(block for block in blocks(README, "bash") if "curl" in block)

    done = desk.shell(script)

    assert done.returncode == 0, done.stderr
    assert "00:00:0" in done.stdout
    assert '"status":"completed"' in done.stdout.replace(" ", "")


def test_the_readme_s_command_for_many_files(desk: Desk) -> None:
    (command,) = re.findall(r"`\.venv/bin/(ananse transcribe [^`]+)`", README.read_text().replace("\n", " "))

    done = desk.shell(command.replace("*.flac", "short-*.flac"))

    assert done.returncode == 0, done.stderr
    assert len(list((desk.folder / "out").glob("short-*.srt"))) == 3


@pytest.mark.parametrize("heading", ["Subtitles for a folder", "In a shell"])
def test_commands_of(desk: Desk, heading: str) -> None:
    page = RECIPES if heading.startswith("Subtitles") else CLIENT
    told = [command for command in commands(page, heading) if runs_here(command)]
    assert told
    for command in told:
        if "watch" in command:
            _watched(desk, command)
        else:
            done = desk.shell(_with_a_job(desk, command))
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
    made = {path.name for path in desk.folder.rglob("*.*t")}
    assert made >= ({"three.srt", "three.vtt"} if page is RECIPES else {"one.srt", "two.srt", "film.vtt"})


def _watched(desk: Desk, command: str) -> None:
    """Until Ctrl-C."""
    shutil.copy(desk.folder / "talk.mp3", desk.folder / "inbox" / "new.mp3")
    process = desk.begin(f"exec {command}")
    try:
        wait_until(lambda: (desk.folder / "inbox" / "new.srt").exists(), _END_S)
        process.send_signal(signal.SIGINT)
        assert process.wait(_END_S) == 130
    finally:
        _kill(process)


def _kill(process: "subprocess.Popen[str]") -> None:
    """With all it has begun."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _with_a_job(desk: Desk, command: str) -> str:
    """A job that can be canceled in place of the page's."""
    if "job_" not in command:
        return command
    with (SAMPLES / "five-minutes.flac").open("rb") as recording:
        job = httpx.post(f"{desk.url}/v1/jobs", files={"file": recording}, timeout=_END_S).json()
    return re.sub(r"job_\w+", job["id"], command)


def test_the_receiver_is_told_in_15_lines(desk: Desk) -> None:
    (code,) = blocks(RECIPES, "python", "A webhook receiver in 15 lines")
    begin, send = commands(RECIPES, "A webhook receiver in 15 lines")
    port = _free_port()
    (desk.folder / "receiver.py").write_text(code.replace("9000", str(port)))
    assert len([line for line in code.splitlines() if line.strip()]) <= 15

    process = desk.begin(f"{begin}\nwait")
    try:
        wait_until(lambda: _answers(port), _END_S)
        assert httpx.post(f"http://127.0.0.1:{port}/", content=b"{}").status_code == 401
        done = desk.shell(send.replace("9000", str(port)))
        assert done.returncode == 0, done.stderr
        assert process.stdout
        line = next(line for line in process.stdout if line.startswith("job_"))
    finally:
        _kill(process)

    assert re.fullmatch(r"job_\w+ completed \w.+\n", line)


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def test_openai_s_client(desk: Desk) -> None:
    (code,) = blocks(RECIPES, "python", "Code that speaks to OpenAI")

    told = desk.python(f"import warnings; warnings.simplefilter('ignore')\n{code}\nprint(answer.text)")

    assert len(told.split()) > 3


def test_the_shortest_of_all(desk: Desk) -> None:
    (code,) = blocks(FACES, "python")

    assert len(desk.python(code).split()) > 3


def test_many_files_at_once(desk: Desk) -> None:
    (code,) = blocks(RECIPES, "python", "Many files from Python, a few at once")

    desk.python(code)

    assert (desk.folder / "recordings" / "one.txt").read_text()


def test_the_client_s_page_in_python(desk: Desk) -> None:
    whole, steps, awaited = blocks(CLIENT, "python", "In Python")

    told = desk.python(
        f"{whole}\nananse = Client()\n{steps}\nprint(subtitles)\njob_id = job.id\n"
        "import asyncio\nfrom ananse_client import AsyncClient\nasync def main():\n"
        f"{textwrap.indent(awaited, '    ')}\n    print(len(transcript.segments))\nasyncio.run(main())"
    )

    assert "completed" in told
    assert " --> " in told


def test_the_doctor_examines_what_is_here(desk: Desk) -> None:
    broken = desk.folder / "broken"
    broken.mkdir()
    (broken / "config.json").write_text("{}")

    well, ill = desk.shell("ananse doctor models/synthetic-en"), desk.shell("ananse doctor ./broken")

    assert (well.returncode, ill.returncode) == (0, 1)
    assert "can be served" in well.stdout
    assert re.fullmatch(r"ananse: .*broken.*\n", ill.stderr)


def test_the_notebook(desk: Desk) -> None:
    """Its stored outputs are for readers; `jupyter execute --inplace` makes them anew beside `make run`."""
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(cell.outputs and cell.execution_count for cell in cells)
    stored = [_text_of(cell) for cell in cells]

    NotebookClient(
        notebook, timeout=_END_S, kernel_name="python3", resources={"metadata": {"path": desk.folder}}
    ).execute(env=desk.variables)

    for cell, before in zip(cells, stored, strict=True):
        assert bool(_text_of(cell)) is bool(before), cell.source


def _text_of(cell: nbformat.NotebookNode) -> str:
    texts = [output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs]
    return "".join(texts)
