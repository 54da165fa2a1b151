"""The benchmark of scale runs, in small: every measurement, its table and its JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.redis, pytest.mark.slow, pytest.mark.calm, pytest.mark.service]

ROOT = Path(__file__).parents[1]
PARTS = {
    "fleets": "Share of Redis for heartbeats, 20 workers, now",
    "queues": "200 waiting, 10 tenants, 2 models: memory of a job",
    "memory": "Memory of a job, queued, Redis tuned",
    "takeovers": "Dead fleet of 40 back in line",
    "simulation": "4 workers at work: windows",
    "saturation": "Whole jobs, 50 waiting, appendfsync always: Redis",
    "shards": "2 Redis servers: whole jobs",
    "service": "Real job, a second Redis: CPU of the broker",
}


@pytest.mark.parametrize("part", PARTS)
def test_a_measurement_gives_its_figures(tmp_path: Path, part: str) -> None:
    table, figures = tmp_path / "scale.md", tmp_path / "scale.json"
    asked = ["--quick", "--only", part, "--report", str(table), "--json", str(figures)]

    subprocess.run(
        [sys.executable, "-m", "benchmarks.scale", *asked],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )

    values = {row["name"]: row["value"] for row in json.loads(figures.read_text())}
    assert values[PARTS[part]] > 0
    assert f"| {PARTS[part]} |" in table.read_text()
