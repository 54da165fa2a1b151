"""From settings to services: what `ananse up` runs, in which order, with which environment."""

import os
import secrets
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from deploy import embedded_redis
from deploy.addresses import Address, claim
from deploy.crew import crew
from deploy.processes import Service
from deploy.state import State
from shared.blobs import open_blobs
from shared.key_ring import require_keys
from shared.settings import Settings

CHECKOUT = Path(__file__).resolve().parent.parent


@dataclass(frozen=True, slots=True)
class Plan:
    """`redis` is None when the settings name one that runs elsewhere. `services` follow it in this order."""

    api: Address
    flower: Address
    redis_url: str
    redis: Service | None
    services: tuple[Service, ...]
    flower_user: str
    flower_password: str = field(repr=False)


def draw_up(settings: Settings, state: State) -> Plan:
    """Raises StartError for all that can be known to be wrong before anything is started."""
    api = claim(settings.host, settings.port, "ANANSE_PORT")
    flower = claim(settings.host, settings.flower_port, "ANANSE_FLOWER_PORT")
    _require_keys(settings, state)
    redis, redis_url = _redis(settings, state)
    password = settings.flower_password.get_secret_value() if settings.flower_password else ""
    password = password or secrets.token_urlsafe(12)
    environment = {
        **os.environ,
        "PYTHONUNBUFFERED": "1",
        **_settings_for_children(settings, state),
        "ANANSE_REDIS_URL": redis_url,
        "ANANSE_PORT": str(api.port),
        "ANANSE_FLOWER_PORT": str(flower.port),
        "ANANSE_FLOWER_PASSWORD": password,
    }
    return Plan(
        api=api,
        flower=flower,
        redis_url=redis_url,
        redis=redis,
        services=_services(settings, environment),
        flower_user=settings.flower_user,
        flower_password=password,
    )


def _require_keys(settings: Settings, state: State) -> None:
    if not settings.is_private:
        made = _settings_for_children(settings, state).get("ANANSE_BLOB_URL", settings.blob_url)
        require_keys(settings, open_blobs(settings.model_copy(update={"blob_url": made})))


def _services(settings: Settings, environment: Mapping[str, str]) -> tuple[Service, ...]:
    python = sys.executable
    return (
        # "python:" finds the file wherever the package is installed, whatever the current folder is.
        Service(
            "api",
            (python, "-m", "gunicorn", "-c", "python:api.gunicorn_conf", "api.app:create_app()"),
            environment,
            grace_s=10,
        ),
        *crew(settings, environment),
        Service("flower", (python, "-m", "deploy.flower_app"), environment, grace_s=5),
    )


def _settings_for_children(settings: Settings, state: State) -> dict[str, str]:
    """What is left out is kept in the state folder, by absolute path."""
    made = {"ANANSE_STATE_DIR": str(state.folder)}
    if "blob_url" not in settings.model_fields_set:
        made["ANANSE_BLOB_URL"] = f"file://{state.blob_dir}"
    if "models" not in settings.model_fields_set and Path.cwd() != CHECKOUT:
        made["ANANSE_MODELS"] = str(CHECKOUT / settings.models)
    return made


def _redis(settings: Settings, state: State) -> tuple[Service | None, str]:
    if "redis_url" in settings.model_fields_set:
        embedded_redis.require(settings.redis_url)
        return None, settings.redis_url
    server = embedded_redis.find_server()
    socket = embedded_redis.socket_path(state.run_dir)
    return embedded_redis.service(server, socket, state.redis_dir, os.environ), embedded_redis.url_of(socket)
