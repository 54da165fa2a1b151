"""The measurement of listeners runs, in small; it fails when one of them misses an event."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.calm, pytest.mark.service]

ROOT = Path(__file__).parents[2]


def test_fifty_listeners_are_measured_and_miss_nothing() -> None:
    asked = ["--listeners", "50", "--jobs", "5", "--idle-s", "0.5", "--talking-s", "2"]

    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.listeners", *asked],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stderr
    row = [cell.strip() for cell in done.stdout.splitlines()[-1].strip("|").split("|")]
    assert (row[0], row[1]) == ("50", "5")
    # 40 windows, each of two events, to the ten who listen to its job.
    assert row[5] == "800"
    assert row[-1] == "16"
