"""bandit over all that is shipped: nothing is found but what has its reason here (T28)."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
ROOMS = ("api", "worker", "shared", "deploy")

JUDGED: dict[tuple[str, str], str] = {
    ("api/gunicorn_conf.py", "B108"): "/dev/shm is only asked about; gunicorn makes its own file there",
    ("api/listening.py", "B101"): "says to the type checker that who listens has been handed over",
    ("api/schemas.py", "B105"): "a pattern of header names, called a token by HTTP",
    ("deploy/addresses.py", "B104"): "compared with, to say how such an address is reached; not bound to",
    ("deploy/cards.py", "B603"): "a fixed command without a shell",
    ("deploy/cards.py", "B607"): "nvidia-smi stands elsewhere on each system",
    ("deploy/credentials.py", "B101"): "two tables of ours that must agree; nobody's input",
    ("deploy/embedded_redis.py", "B108"): "the folder is made by tempfile, private to the user",
    ("deploy/lock.py", "B603"): "for developers: uv with arguments from pyproject.toml",
    ("deploy/processes.py", "B101"): "says to the type checker what the lines above have made sure",
    ("deploy/processes.py", "B603"): "starts the service's own programs, without a shell",
    ("deploy/tether.py", "B606"): "becomes the command it was given by our own supervisor",
    ("worker/engine/audio.py", "B101"): "says to the type checker that the pipe that was asked for is there",
    ("worker/engine/audio.py", "B603"): "the decoder's child: our own interpreter and module, no shell",
    ("worker/engine/loading.py", "B615"): "the folder is a local one by then, fetched at a pinned revision",
    ("worker/connections.py", "B113"): "the whole attempt has one deadline; httpx's are for each read anew",
}
"""By file and bandit's number. One reason is for all of that number in that file."""

SKIPPED = {"B404": "that subprocess is imported is no finding; each call of it is judged"}


def test_bandit_finds_nothing_but_what_is_judged() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "bandit", "-q", "-r", *ROOMS, "-f", "json", "-s", ",".join(SKIPPED)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    report = json.loads(ended.stdout)
    found = {(row["filename"], row["test_id"]): row for row in report["results"]}
    assert report["errors"] == []
    assert report["metrics"]["_totals"]["loc"] > 5000
    assert [row for key, row in found.items() if key not in JUDGED] == []
    assert JUDGED.keys() - found.keys() == set(), "these are found no more"
    assert not [row for row in found.values() if row["issue_severity"] == "HIGH"]
