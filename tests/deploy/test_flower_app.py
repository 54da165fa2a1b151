"""Flower is closed to strangers wherever it stands, and does not start where it would be open."""

from pathlib import Path

import httpx
import pytest

from deploy.flower_app import run
from shared.settings import Settings, SettingsError
from tests.support.flower import flower

PAGES = ("/", "/workers", "/tasks", "/broker", "/worker/x", "/task/x")
CALLS = ("/api/workers", "/api/tasks", "/api/task/types", "/api/queues/length", "/api/task/info/x")
ACTS = (
    "/api/worker/shutdown/x",
    "/api/worker/pool/restart/x",
    "/api/worker/queue/cancel-consumer/x",
    "/api/task/revoke/x",
    "/api/task/send-task/ananse.prepare",
    "/api/task/async-apply/ananse.prepare",
)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "flower.example"])
def test_without_a_password_it_does_not_start_where_others_reach_it(host: str) -> None:
    with pytest.raises(SettingsError, match="ANANSE_FLOWER_PASSWORD must be set"):
        run(Settings(host=host))


@pytest.mark.parametrize("name", ["FLOWER_BASIC_AUTH", "FLOWER_UNAUTHENTICATED_API", "FLOWER_AUTH_PROVIDER"])
def test_what_would_go_before_our_password_is_refused(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "true")

    with pytest.raises(SettingsError, match=name):
        run(Settings(flower_password="secret"))


@pytest.mark.redis
@pytest.mark.service
@pytest.mark.slow
def test_nobody_gets_in_without_the_password(redis_url: str, tmp_path: Path) -> None:
    settings = Settings(redis_url=redis_url, host="0.0.0.0")
    with flower(settings, tmp_path / "flower.log") as watcher:
        assert "Flower" in watcher("/workers")
        for auth in (None, ("ananse", "wrong"), ("ananse", ""), ("", "")):
            with httpx.Client(base_url=watcher.url, auth=auth, trust_env=False, timeout=20) as stranger:
                for path in (*PAGES, *CALLS):
                    assert stranger.get(path).status_code == 401, (auth, path)
                for path in ACTS:
                    assert stranger.post(path).status_code in (401, 403), (auth, path)
