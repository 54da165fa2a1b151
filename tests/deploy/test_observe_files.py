"""The files for Prometheus and Grafana, as far as they can be judged without running the service."""

import json
import shutil
import subprocess
from typing import Any

import pytest
import yaml

from deploy.plan import CHECKOUT

OBSERVE = CHECKOUT / "deploy" / "observe"
COLUMNS = 24


@pytest.fixture
def panels() -> list[dict[str, Any]]:
    text = (OBSERVE / "grafana" / "dashboards" / "ananse.json").read_text()
    found: list[dict[str, Any]] = json.loads(text)["panels"]
    return found


def promtool(*arguments: object) -> None:
    binary = shutil.which("promtool") or pytest.skip("promtool, of the package prometheus, is not installed")
    done = subprocess.run([binary, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_prometheus_takes_the_settings_and_rules() -> None:
    promtool("check", "config", OBSERVE / "prometheus.yml")


def test_every_alert_fires_when_it_should_and_not_before() -> None:
    promtool("test", "rules", CHECKOUT / "tests" / "deploy" / "alerts.yml")


def test_every_alert_is_tried_and_says_what_to_do() -> None:
    rules = yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"][0]["rules"]
    tried = (CHECKOUT / "tests" / "deploy" / "alerts.yml").read_text()

    for rule in rules:
        assert f'alertname="{rule["alert"]}"' in tried, rule["alert"]
        assert rule["annotations"]["summary"]
        assert rule["annotations"]["action"]
        assert rule["labels"]["severity"] in ("critical", "warning")


def test_no_panel_covers_another_or_has_its_number(panels: list[dict[str, Any]]) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        assert place["x"] + place["w"] <= COLUMNS, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in panels}) == len(panels)


def test_panels_ask_the_source_that_is_provisioned(panels: list[dict[str, Any]]) -> None:
    sources = yaml.safe_load((OBSERVE / "grafana/provisioning/datasources/prometheus.yml").read_text())
    known = {source["uid"] for source in sources["datasources"]}

    asked = {target["datasource"]["uid"] for panel in panels for target in panel.get("targets", ())}
    assert asked == known
