"""The command line against a real service: what it prints, writes, remembers and how it ends."""

import json
import os
import re
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ananse_client.cli import main
from ananse_client.cli.inputs import find
from shared.job import Failure
from tests.chaos.sounds import Sound, sound, sounds
from tests.client.conftest import Served
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.redis, pytest.mark.service]

ROOT = Path(__file__).parents[2]
Command = Callable[..., int]


@pytest.fixture
def ananse(working: Served, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("ANANSE_URL", working.url)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def run(command: str, *arguments: object) -> int:
        # What is sent here is noise, which is no speech.
        more = ["--option", "vad=off"] if command in ("transcribe", "watch") else []
        return main([command, *(str(argument) for argument in arguments), *more])

    return run


def jobs_of(served: Served, **filters: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = httpx.get(
        f"{served.url}/v1/jobs", params=filters | {"limit": "100"}
    ).json()["jobs"]
    return found


def test_a_file_goes_in_and_text_comes_out(
    ananse: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sound(tmp_path / "talk.wav", 7.0, 1)

    assert ananse("transcribe", made.path) == 0

    told = capsys.readouterr()
    assert told.out.split() == made.text.split()
    assert "talk: uploading" in told.err
    assert "talk: done 100%" in told.err


def test_a_folder_keeps_its_shape_in_several_formats(ananse: Command, tmp_path: Path) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    (folder / "day 1").mkdir(parents=True)
    deep = sound(folder / "day 1" / "one.wav", 4.0, 2)
    sound(folder / "two.wav", 4.0, 3)
    (folder / "two.mp3").write_bytes((folder / "two.wav").read_bytes())
    (folder / "notes.txt").write_text("no recording")

    assert ananse("transcribe", folder, "--format", "srt,text,json", "-o", out, "-q") == 0

    assert sorted(str(path.relative_to(out)) for path in out.rglob("*.srt")) == [
        "day 1/one.srt",
        "two.mp3.srt",
        "two.wav.srt",
    ]
    assert (out / "day 1" / "one.txt").read_text().split() == deep.text.split()
    assert json.loads((out / "two.wav.json").read_text())["segments"]
    assert not [path for path in out.rglob("*") if path.name.startswith(".")]


def test_what_was_done_is_not_sent_again(
    ananse: Command, working: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = sound(tmp_path / "once.wav", 4.0, 4)
    first = ananse("transcribe", made.path, "--tag", "once", "-q")
    text = capsys.readouterr().out

    again = ananse("transcribe", made.path, "--tag", "once")

    told = capsys.readouterr()
    assert (first, again, told.out) == (0, 0, text)
    assert "uploading" not in told.err
    assert len(jobs_of(working, tag="once")) == 1
    assert ananse("transcribe", made.path, "--tag", "once", "--again", "-q") == 0
    assert len(jobs_of(working, tag="once")) == 2


def test_a_changed_file_is_other_work(ananse: Command, working: Served, tmp_path: Path) -> None:
    path = sound(tmp_path / "changing.wav", 4.0, 5).path
    ananse("transcribe", path, "--tag", "changing", "-q")

    sound(path, 4.5, 6)
    ananse("transcribe", path, "--tag", "changing", "-q")

    assert len(jobs_of(working, tag="changing")) == 2


def test_ctrl_c_and_the_same_command_again(served: Served, tmp_path: Path) -> None:
    """No worker is up: the command waits for its jobs, is stopped, and finds them again."""
    made = sounds(tmp_path, [3.0, 3.0], 7)
    command = ("transcribe", *(one.path for one in made), "--tag", "stopped")

    first = start(served, tmp_path, *command)
    wait_until(lambda: len(jobs_of(served, tag="stopped")) == 2)
    wait_until(lambda: len(remembered(tmp_path)) == 2)
    first.send_signal(signal.SIGINT)
    _, complaint = first.communicate(timeout=60)
    second = start(served, tmp_path, *command)
    for job in jobs_of(served, tag="stopped"):
        served.hand.complete(job["id"])
    out, progress = second.communicate(timeout=60)

    assert first.returncode == 130
    assert "goes on from here" in complaint
    assert second.returncode == 0
    assert out.count("Good morning.") == 2
    assert "uploading" not in progress
    assert len(jobs_of(served, tag="stopped")) == 2


def start(served: Served, state: Path, *arguments: object) -> "subprocess.Popen[str]":
    """The command as a process of its own, in its own folder of state."""
    return subprocess.Popen(
        [sys.executable, "-m", "ananse_client.cli", *(str(argument) for argument in arguments)],
        env=os.environ
        | {"ANANSE_URL": served.url, "XDG_STATE_HOME": str(state), "PYTHONPATH": str(ROOT / "client")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Tests that run in the background of a shell ignore it, and their children would.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def remembered(state: Path) -> list[str]:
    with sqlite3.connect(state / "ananse" / "sent.sqlite") as database:
        return [row[0] for row in database.execute("SELECT job_id FROM sent WHERE job_id != ''")]


def test_json_for_scripts_and_the_exit_code_of_failure(
    ananse: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.wav"
    broken.write_bytes(b"no sound at all" * 100)
    good = sound(tmp_path / "good.wav", 3.0, 8)

    code = ananse("transcribe", broken, good.path, "--json", "-q")

    told = capsys.readouterr()
    failed, done = (json.loads(line) for line in told.out.splitlines())
    assert code == 1
    assert (failed["status"], failed["error"]["code"]) == ("failed", "unsupported_format")
    assert (done["status"], done["transcripts"][0].split()) == ("completed", good.text.split())
    assert "broken.wav: unsupported_format" in told.err


def test_watch_takes_what_comes_and_leaves_what_is_done(
    ananse: Command, working: Served, tmp_path: Path
) -> None:
    folder = tmp_path / "inbox"
    folder.mkdir()
    made = sound(folder / "new.wav", 3.0, 9)
    watch = ("watch", folder, "--once", "--every", "0.05", "-f", "srt", "--tag", "watched", "-q")

    codes = [ananse(*watch), ananse(*watch)]

    assert codes == [0, 0]
    assert made.texts[0] in (folder / "new.srt").read_text()
    assert len(jobs_of(working, tag="watched")) == 1


def test_watch_tries_again_what_may_pass(served: Served, tmp_path: Path) -> None:
    """Failures that may pass twice, then one that may not: the next look is for what is new alone."""
    folder = tmp_path / "unlucky"
    folder.mkdir()
    sound(folder / "again.wav", 3.0, 12)
    watching = start(served, tmp_path, "watch", folder, "--every", "0.05", "--tag", "unlucky")
    try:
        for failure in (
            Failure("worker_crashed", "It fell.", True),
            Failure("worker_crashed", "It fell.", True),
            Failure("no_audio", "There is none.", False),
        ):
            wait_until(lambda: jobs_of(served, tag="unlucky", status="queued"), 60)
            (job,) = jobs_of(served, tag="unlucky", status="queued")
            served.hand.fail(job["id"], failure)
        sound(folder / "next.wav", 3.0, 13)
        wait_until(lambda: jobs_of(served, tag="unlucky", status="queued"), 60)
    finally:
        watching.send_signal(signal.SIGINT)
        _, told = watching.communicate(timeout=60)

    (job,) = jobs_of(served, tag="unlucky", status="queued")
    assert (watching.returncode, job["media"]["name"]) == (130, "next.wav")
    assert len(jobs_of(served, tag="unlucky")) == 4
    assert f"watching {folder}" in told


def test_jobs_are_listed_and_acted_on(
    ananse: Command, served: Served, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    at = ("--url", served.url)
    made = sound(tmp_path / "listed.wav", 3.0, 10)
    job = httpx.post(
        f"{served.url}/v1/jobs",
        params={"tag": "listed", "name": "listed.wav"},
        content=made.path.read_bytes(),
        headers={"Content-Type": "audio/wav"},
    ).json()

    assert ananse("jobs", "--tag", "listed", *at) == 0
    assert re.fullmatch(rf"{job['id']}  queued .* listed.wav\n", capsys.readouterr().out)
    assert ananse("jobs", "cancel", job["id"], "--json", *at) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "canceled"
    assert ananse("jobs", "delete", job["id"], *at) == 0
    assert ananse("jobs", "show", job["id"], *at) == 1
    assert "not_found" in capsys.readouterr().err


def test_models_in_a_line_each(ananse: Command, capsys: pytest.CaptureFixture[str]) -> None:
    assert ananse("models") == 0
    assert capsys.readouterr().out.startswith("* synthetic-en: cpu float32; transcribe")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("transcribe", "missing.wav"), 1, "there is no file"),
        (("transcribe", __file__, "--format", "docx"), 2, "docx"),
        (("transcribe", __file__, "--option", "x"), 2, "NAME=VALUE"),
        (("transcribe", __file__, "--url", "http://127.0.0.1:9"), 3, "does not answer"),
        (("watch", str(ROOT / "docs"), "--url", "http://127.0.0.1:9"), 3, "does not answer"),
        (("models", "--url", "http://127.0.0.1:9"), 3, "does not answer"),
        (("models", "--url", "ftp://host"), 1, "http://"),
        (("jobs", "cancel"), 2, "ids"),
        (("doctor", "/no/such/model"), 1, "/no/such/model"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: tuple[str, ...],
    code: int,
    words: str,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path))
    monkeypatch.setattr("time.sleep", lambda seconds: None)

    assert main(arguments) == code

    complaint = capsys.readouterr().err
    assert complaint.startswith("ananse: ")
    assert words in complaint
    assert complaint.count("\n") == 1


def test_patterns_are_found_where_no_shell_did_it(tmp_path: Path) -> None:
    made: list[Sound] = sounds(tmp_path, [1.0, 1.0], 11)

    assert {one.source for one in find([str(tmp_path / "*.wav"), str(made[0].path)])} == {
        str(one.path) for one in made
    }


def test_the_client_alone_knows_nothing_of_the_service() -> None:
    """Nor torch, Flask or Celery: its folder is all there is on the path."""
    script = (
        "import sys; sys.path.insert(0, 'client'); import ananse_client.cli;"
        "print(*sorted({name.split('.')[0] for name in sys.modules}))"
    )
    held = subprocess.run(
        [sys.executable, "-I", "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.split()

    strangers = {
        "api",
        "worker",
        "shared",
        "deploy",
        "torch",
        "numpy",
        "flask",
        "celery",
        "redis",
        "pydantic",
    }
    assert strangers & set(held) == set()


def test_one_command_has_all_where_both_are_installed() -> None:
    help_text = subprocess.run(
        [sys.executable, "-m", "deploy.cli", "--help"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": f"{ROOT}:{ROOT / 'client'}"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    for command in ("up", "admin", "transcribe", "watch", "jobs", "models", "doctor"):
        assert re.search(rf"^ +{command} ", help_text, re.MULTILINE), command
