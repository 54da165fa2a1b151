"""Both sides truly run: in small, where BentoML's environment has been made."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks.bento.servers import BENTO_PYTHON, ROOT

PINS = re.compile(r"^([\w-]+)==(\S+)$", re.MULTILINE)


def test_what_both_sides_use_is_pinned_alike() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    ours = dict(PINS.findall("\n".join(project["optional-dependencies"]["worker"])))
    theirs = dict(PINS.findall((ROOT / "benchmarks" / "bento" / "requirements.txt").read_text()))

    shared = set(theirs) & set(ours)
    assert {"torch", "transformers"} <= shared
    assert {name: theirs[name] for name in shared} == {name: ours[name] for name in shared}


@pytest.mark.slow
@pytest.mark.service
@pytest.mark.model
@pytest.mark.timeout(1800)
def test_a_quick_run_fills_every_table(tmp_path: Path) -> None:
    if not BENTO_PYTHON.exists():
        pytest.skip("BentoML's environment is made by `make bench-bento`")
    report, figures = tmp_path / "report.md", tmp_path / "figures.json"

    command = (sys.executable, "-m", "benchmarks.versus_bentoml", "--quick")
    subprocess.run(
        (*command, "--report", str(report), "--json", str(figures)),
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        check=True,
    )

    content = json.loads(figures.read_text())
    patient = [one for one in content["rounds"] if one["clients"] != "first answer taken"]
    assert [one["rounds"][0]["transcripts"] for one in patient] == [6] * len(patient)
    ours = [one for one in content["killed"] if one["side"] == "Ananse"]
    assert [one["transcripts"] for one in ours] == [6, 6]
    assert content["no_audio"]["BentoML, the seed"].startswith("200")
    assert content["no_audio"]["Ananse"].startswith("4")
    assert "## kill -9 in the middle" in report.read_text()
