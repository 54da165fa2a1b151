"""What looks on sees: every metric and label that dashboard, alerts and docs name is told by the service."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from deploy.addresses import claim
from deploy.plan import CHECKOUT
from deploy.readiness import responds
from tests.deploy.observed import USER, Observed, observed
from tests.support.metrics import labels_of
from tests.support.redis_server import redis_server, require_binary
from tests.support.waiting import wait_until
from worker.readings import GPU_MEMORY

OBSERVE = CHECKOUT / "deploy" / "observe"
DASHBOARD = OBSERVE / "grafana" / "dashboards" / "ananse.json"
DOCS = CHECKOUT / "docs" / "metrics.md"

ONLY_ON_CARDS = {f"ananse_gpu_memory_{name}_bytes" for name in GPU_MEMORY}
OF_PROMETHEUS = {"up", "ALERTS"}
TARGET_LABELS = {"instance", "job", "alertname", "alertstate"}
"""What Prometheus adds to every sample."""

_METRIC = re.compile(r"\b((?:ananse|flower|process|python)_[a-z0-9_]+|up|ALERTS)\b(?:\{([^}]*)\})?")
_GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
_MATCHED = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)\s*\"")
_SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
_ROW = re.compile(r"^\| `(ananse_\w+)` \| (\w+) \| (.*?) \| (.+) \|$", re.MULTILINE)


def dashboard() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(DASHBOARD.read_text())
    return loaded


def rules() -> list[dict[str, Any]]:
    groups = yaml.safe_load((OBSERVE / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def queries() -> Iterator[tuple[str, str, str]]:
    """Where a query stands, the query, and the text that shows its labels."""
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", ()):
            yield panel["title"], target["expr"], target["legendFormat"]
    for note in dashboard()["annotations"]["list"]:
        yield note["name"], note["expr"], note["titleFormat"]
    for variable in dashboard()["templating"]["list"]:
        yield variable["name"], variable["definition"], ""
    for rule in rules():
        yield rule["alert"], rule["expr"], rule["annotations"]["summary"]


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with (
        redis_server(require_binary()) as url,
        observed(url, tmp_path_factory.mktemp("observed")) as watched,
    ):
        # Flower hears of a task when it is over.
        wait_until(lambda: "ananse.deliver" in watched.pages()[2], 60)
        yield watched


pytestmark = [pytest.mark.redis, pytest.mark.service, pytest.mark.slow]


def test_every_metric_and_label_that_is_asked_for_is_told(watched: Observed) -> None:
    told = labels_of(watched.pages())
    missing = []
    for place, query, shown in queries():
        named = _METRIC.findall(query)
        assert named, place
        for name, matchers in named:
            if name in ONLY_ON_CARDS | OF_PROMETHEUS:
                continue
            if name not in told:
                missing.append(f"{place}: {name}")
                continue
            wrong = set(_MATCHED.findall(matchers)) - told[name] - TARGET_LABELS
            missing += [f"{place}: {name} has no {label}" for label in wrong]
        grouped = {label.strip() for found in _GROUPED.findall(query) for label in found.split(",")}
        known = {label for name, _ in named for label in told.get(name, ())} | TARGET_LABELS
        if any(name in ONLY_ON_CARDS for name, _ in named):
            known.add("device")
        missing += [f"{place}: nothing has {label}" for label in grouped - known]
        has = grouped or known
        missing += [
            f"{place}: {label} is lost before it is shown" for label in {*_SHOWN.findall(shown)} - has
        ]

    assert missing == []


def test_the_docs_tell_every_metric_as_it_is(watched: Observed) -> None:
    api, worker, _ = watched.pages()
    told = {}
    for family in (*text_string_to_metric_families(api), *text_string_to_metric_families(worker)):
        if family.name.startswith("ananse_"):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = {label for sample in family.samples for label in sample.labels} - {"le"}
            told[name] = (family.type, labels)
    told |= {name: ("gauge", {"device"}) for name in ONLY_ON_CARDS}

    written = {
        name: (kind, set(re.findall(r"`(\w+)`", labels)))
        for name, kind, labels, _ in _ROW.findall(DOCS.read_text())
    }

    assert written == told


def test_flower_knows_our_tasks_and_changes_nothing(watched: Observed) -> None:
    tasks = watched.flower_api("tasks").json().values()
    (worker,) = {task["worker"] for task in tasks}

    states = {(task["name"], task["state"]) for task in tasks}
    assert states == {(f"ananse.{kind}", "SUCCESS") for kind in ("prepare", "part", "finish", "deliver")}
    assert httpx.get(f"{watched.flower}/api/tasks").status_code == 401
    shut = httpx.post(f"{watched.flower}/api/worker/shutdown/{worker}", auth=USER)
    assert shut.status_code == 403
    labels = {"task": "ananse.part", "type": "task-succeeded", "worker": worker}
    written = ",".join(f'{name}="{value}"' for name, value in labels.items())
    assert f"flower_events_total{{{written}}} 1.0" in watched.pages()[2]


def test_prometheus_answers_every_query(watched: Observed, tmp_path: Path) -> None:
    """With our own settings, but for addresses and times."""
    allowed_empty = ("GPU memory", "AnanseGpuMemoryNearlyFull", "Redis memory", "Alerts")
    with prometheus(watched, tmp_path) as url:
        before = count(url, "sum(ananse_http_requests_total)")
        wait_until(lambda: count(url, "sum(ananse_http_requests_total)") > before, 60)
        empty = []
        for panel in dashboard()["panels"]:
            for target in panel.get("targets", ()):
                query = target["expr"].replace("$__rate_interval", "30s").replace("$model", ".*")
                answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
                assert answer["status"] == "success", (panel["title"], answer)
                if not answer["data"]["result"] and panel["title"] not in allowed_empty:
                    empty.append(f"{panel['title']}: {query}")
        states = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"][0]["rules"]

    assert empty == []
    assert {rule["health"] for rule in states} <= {"ok", "unknown"}
    assert {rule["name"] for rule in states} == {rule["alert"] for rule in rules()}


def count(url: str, query: str) -> float:
    result = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()["data"]["result"]
    return float(result[0]["value"][1]) if result else 0.0


@contextmanager
def prometheus(watched: Observed, folder: Path) -> Iterator[str]:
    """A real one, that reads the service as ours would."""
    binary = shutil.which("prometheus") or pytest.skip("no prometheus is installed")
    config = yaml.safe_load((OBSERVE / "prometheus.yml").read_text())
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    config["rule_files"] = [str(OBSERVE / "alerts.yml")]
    for job in config["scrape_configs"]:
        address = getattr(watched, job["job_name"]).removeprefix("http://")
        del job["dns_sd_configs"]
        job["static_configs"] = [{"targets": [address]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    listen = f"127.0.0.1:{claim('127.0.0.1', 0, '').port}"
    process = subprocess.Popen(
        [
            binary,
            f"--config.file={folder}/prometheus.yml",
            f"--storage.tsdb.path={folder}/tsdb",
            f"--web.listen-address={listen}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = f"http://{listen}"
        wait_until(lambda: responds(f"{url}/-/ready"), 60)
        jobs = len(config["scrape_configs"])
        wait_until(lambda: count(url, "count(up == 1)") == jobs, 60)
        yield url
    finally:
        process.terminate()
        process.wait()
