"""All settings, read once from `ANANSE_*` and passed on as one frozen value. No other file reads the
environment or the secrets. docs/configuration.md is checked against this class by a test."""

import os
import re
from ipaddress import IPv4Network, IPv6Network, ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.devices import AUTO, check_device, parse_devices
from shared.models import parse_models
from shared.secret_files import SECRETS_DIR, fault_of, secret_files

PREFIX = "ANANSE_"
_HTTP_ADDRESS = re.compile(r"https?://[^\s/?#]+(/[^\s?#]*)?")
_BROKERS = ("redis", "rediss", "unix", "amqp", "amqps")
_OF_CLIENTS = frozenset({"ANANSE_URL", "ANANSE_API_KEY"})
"""What `ananse transcribe` reads: no settings of the service, which may run in the same shell."""
OBJECT_PART_BYTES = 5 * 2**20
"""The least an object store takes as a part of an upload."""
MOST_OBJECT_BYTES = OBJECT_PART_BYTES * 10_000
"""And that is the most parts it takes."""


class SettingsError(Exception):
    """One sentence that says which settings are wrong and what to do."""


class Settings(BaseSettings):
    """Where the service stands and how much it takes. Sizes in bytes, times in seconds.

    Printed, it shows no secret, and no address that may hold one.
    """

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        frozen=True,
        extra="forbid",
        env_ignore_empty=True,
        allow_inf_nan=False,
        # A wrong value may be a secret in the wrong place.
        hide_input_in_errors=True,
    )

    # Where things are
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        repr=False,
        description="Job store and Celery broker; `unix://` and, over TLS, `rediss://` work too: "
        "`rediss://host:6380/0?ssl_ca_certs=/ca.pem&ssl_certfile=/own.pem&ssl_keyfile=/own.key`. "
        "Left out, `ananse up` starts one.",
    )
    broker_url: str | None = Field(
        None,
        repr=False,
        description="Another Celery broker than the job store: a Redis of its own, or RabbitMQ (`amqp://`, "
        "`amqps://`). Only hints go there, see `docs/scaling.md`.",
    )
    blob_url: str = Field(
        "file://./var/blobs",
        description="Where media, audio parts and transcripts lie: `file:///folder` or `s3://bucket/prefix`.",
    )
    models: str = Field(
        "models/synthetic-en",
        description="Models to serve, separated by commas, each a hub id or a folder: "
        "`[alias=]source[@revision][?window_s=8&device=cuda:0+cpu&batch_size=16&dtype=float16]`. "
        "The first is the default.",
    )
    hf_endpoint: str | None = Field(None, repr=False, description="Another model hub than the public one.")

    # Object store
    s3_endpoint: str | None = Field(
        None,
        repr=False,
        description="For `s3://`: address of a store that is not AWS's, such as `https://minio.example:9000`.",
    )
    s3_region: str | None = Field(
        None, description="Left out, what AWS's own settings of the machine say, or `us-east-1`."
    )
    s3_addressing: Literal["auto", "path", "virtual"] = Field(
        "auto",
        description="Bucket in the path or in the host name; `auto` is `path` at an endpoint of yours.",
    )
    s3_access_key_id: str | None = Field(
        None,
        description="Left out, credentials come as for AWS's own programs: environment, profile or role.",
    )
    s3_secret_access_key: SecretStr | None = Field(None, description="The secret of that key.")
    scratch_dir: Path | None = Field(
        None,
        description="Where a worker keeps a recording while it decodes it; needs room for the largest upload "
        "times twice `ANANSE_PREPARE_SLOTS`. Left out, `scratch` in `ANANSE_STATE_DIR`.",
    )

    # HTTP
    host: str = Field("127.0.0.1", description="Address the API binds to.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="Port of the API.")
    api_workers: Annotated[int, Field(ge=1, le=64)] = Field(1, description="API processes.")
    api_threads: Annotated[int, Field(ge=4, le=1024)] = Field(
        64,
        description="Threads of each API process; a client that waits for a job holds one, who listens to "
        "events none.",
    )
    public_url: str | None = Field(None, description="The service's own address, for links in webhooks.")
    max_upload_bytes: Annotated[int, Field(ge=1024)] = Field(5 * 2**30, description="Largest upload taken.")
    upload_idle_s: Annotated[float, Field(ge=1)] = Field(
        60,
        description="Who takes longer for a request's head, or for each next 128 KiB of an upload, is cut, "
        "and so is who reads nothing for so long.",
    )
    max_wait_s: Annotated[float, Field(ge=0, le=120)] = Field(
        60, description="Longest `?wait=` and longest wait of `POST /transcribe`."
    )
    idempotency_s: Annotated[float, Field(ge=60)] = Field(
        86_400, description="How long an Idempotency-Key is remembered."
    )

    # API keys
    trusted_network: bool = Field(
        False,
        description="Only trusted machines reach `ANANSE_HOST`: as on loopback, no key is asked for while "
        "none was ever made.",
    )
    metrics_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (IPv4Network("127.0.0.0/8"), IPv6Network("::1/128")),
        description="Networks whose machines read `/metrics` and `/internal/scale` without a key, separated "
        "by commas; what comes through a proxy needs one.",
    )
    key_requests_per_min: Annotated[int, Field(ge=0)] = Field(
        6000, description="Requests that a key may make in a minute; 0 for no bound."
    )
    wrong_keys_per_min: Annotated[int, Field(ge=0)] = Field(
        60,
        description="Wrong keys from one address in a minute before they are told to wait; a right one "
        "never is. 0 for no bound.",
    )
    key_jobs: Annotated[int, Field(ge=0)] = Field(
        10_000, description="Jobs of a key that have not ended; 0 for no bound."
    )
    key_audio_s: Annotated[float, Field(ge=0)] = Field(
        360_000, description="Seconds of audio that those jobs may owe; 0 for no bound."
    )
    key_stored_bytes: Annotated[int, Field(ge=0)] = Field(
        100 * 2**30, description="Bytes of a key's recordings that are kept; 0 for no bound."
    )

    # Jobs
    retention_s: Annotated[float, Field(ge=60)] = Field(
        7 * 86_400, description="Media and results of an ended job are deleted after this."
    )
    media_retention_s: Annotated[float, Field(ge=0)] | None = Field(
        None, description="Media of an ended job is deleted after this already; left out, with the result."
    )
    tombstone_s: Annotated[float, Field(ge=60)] = Field(
        7 * 86_400, description="The record of an expired job answers `410` for so long, then it is unknown."
    )
    reuse: bool = Field(
        True,
        description="A client's recording that was transcribed before, in the same way, is not run again.",
    )
    max_backlog_s: Annotated[float, Field(ge=0)] = Field(
        3_600_000, description="While jobs owe so many seconds of audio, no more are taken; 0 for no bound."
    )
    max_duration_s: Annotated[float, Field(ge=1)] = Field(12 * 3600, description="Longest recording taken.")
    part_s: Annotated[float, Field(ge=30)] = Field(
        600, description="A file is worked on in parts of about this length."
    )
    lease_s: Annotated[float, Field(ge=1)] = Field(
        30, description="A step whose worker is silent for so long goes to another."
    )
    hint_s: Annotated[float, Field(ge=1)] = Field(
        20, description="A queue message nobody took for so long is sent again."
    )
    sweep_s: Annotated[float, Field(ge=0.1)] = Field(2, description="Pause between two looks of the sweeper.")
    max_claims: Annotated[int, Field(ge=1)] = Field(
        8, description="A step that was begun so often and never ended fails its job."
    )

    # Worker
    device: str = Field(
        AUTO, description="Where one worker's models run: `auto`, `cpu`, `cuda` (the first card) or `cuda:N`."
    )
    devices: str = Field(
        AUTO,
        description="What `ananse up` and `python -m deploy.workers` start a worker on, each: `auto` (every "
        "card, else the processor; `ANANSE_DEVICE` if that is set), or a list as in `cuda:0,cuda:1,cpu`; "
        "`cuda` is every card.",
    )
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto",
        description="Number format of the model; `auto` takes bfloat16 where the processor has it; on a "
        "processor it lets a model's encoder take the shortcuts it bears, and keeps what its decoder reads "
        "in float16. A named format is exact.",
    )
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Threads of a worker's models; 0 takes its share of the processor's cores."
    )
    batch_size: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Slots: windows that are decoded at once."
    )
    prepare_slots: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Short files a worker decodes at once, and as many long ones beside them."
    )
    part_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Short parts a worker transcribes at once, and as many long ones beside them."
    )
    deliver_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="Webhooks a worker sends at once; one receiver gets half of them at most."
    )
    fetch_slots: Annotated[int, Field(ge=0, le=256)] = Field(
        4,
        description="Recordings a worker fetches at once; 0 for none. An API with 0 refuses `audio_url`.",
    )
    fetch_timeout_s: Annotated[float, Field(ge=1)] = Field(
        600, description="Longest fetch of one recording; it may be as large as an upload."
    )
    fetch_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Private networks that recordings may be fetched from, as in `ANANSE_WEBHOOK_ALLOW`."
    )
    fetch_buckets: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="Buckets that an `s3://` address may name, separated by commas: every client may read "
        "them, with the credentials of `ANANSE_S3_...`.",
    )
    decode_timeout_s: Annotated[float, Field(ge=1)] = Field(1800, description="Longest decode of one file.")
    decode_memory_bytes: Annotated[int, Field(ge=2**27)] = Field(
        2**30, description="Memory the decoder may take."
    )
    decode_sandbox: Literal["auto", "full"] = Field(
        "auto",
        description="`full`: a worker that is granted less than the whole sandbox around its decoder does "
        "not start; `auto`: it says so and goes on. See `docs/media.md`.",
    )
    model_idle_s: Annotated[float, Field(ge=0)] = Field(
        0, description="A model nobody used for so long leaves memory, until it is used again; 0 for never."
    )
    max_loaded: Annotated[int, Field(ge=0)] = Field(
        0,
        description="Most models of one worker in memory at once: the longest unused one makes room; "
        "0 for as many as fit.",
    )
    batch_timeout_s: Annotated[float, Field(ge=10)] = Field(
        600, description="A worker whose model works on one pass for longer ends itself and is started anew."
    )
    deaf_s: Annotated[float, Field(ge=1)] = Field(
        30, description="A worker that has room, but fetched no waiting message for so long, starts anew."
    )
    memory_growth_bytes: Annotated[int, Field(ge=0)] = Field(
        4 * 2**30,
        description="A worker that grew by more since it was ready, the silence its models remember aside, "
        "hands its work back and starts anew; 0 for no bound.",
    )
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        0, description="Port of a worker's metrics, bound to `ANANSE_HOST`; 0 for none. The API has its own."
    )
    stop_grace_s: Annotated[float, Field(ge=1)] = Field(
        25, description="A stopping worker hands its work back within this."
    )

    # Webhooks
    webhook_secret: SecretStr | None = Field(
        None,
        description="Signing secret, `whsec_` and base64; left out, one is made and kept: "
        "`ananse webhook-secret` prints it.",
    )
    webhook_secret_previous: SecretStr | None = Field(
        None,
        description="While receivers change to a new secret: the one before, which signs as well.",
    )
    webhook_allow: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        (), description="Private networks that webhooks may go to, separated by commas (`127.0.0.0/8`)."
    )
    webhook_timeout_s: Annotated[float, Field(ge=0.1, le=60)] = Field(
        15, description="Longest webhook attempt."
    )
    webhook_retry_s: Annotated[tuple[Annotated[float, Field(ge=0)], ...], NoDecode] = Field(
        (5, 300, 1800, 7200, 18_000, 36_000, 36_000),
        description="Pauses between webhook attempts, separated by commas; each is varied by 20 %.",
    )

    webhook_disable_s: Annotated[float, Field(ge=60)] = Field(
        5 * 86_400,
        description="A receiver that has only failed for so long gets no more, until a replay or "
        "`ananse webhooks enable`.",
    )

    # Flower, logs and traces
    flower_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        5555, description="Port of Flower, bound to `ANANSE_HOST`."
    )
    flower_user: str = Field("ananse", description="User name of Flower.")
    flower_password: SecretStr | None = Field(
        None, description="Password of Flower; made and printed at start when left out."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    otlp_endpoint: str | None = Field(
        None,
        repr=False,
        description="Where traces go: an OpenTelemetry collector's OTLP/HTTP address, like "
        "`http://collector:4318`; needs the extra `tracing`. Left out, there are none.",
    )
    state_dir: Path = Field(
        Path("var"),
        description="Where `ananse up` keeps its Redis, sockets and logs, and a worker the file it touches.",
    )

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("metrics_allow", "webhook_allow", "webhook_retry_s", "fetch_allow", "fetch_buckets"):
            given = values.get(name)
            if isinstance(given, str):
                values[name] = tuple(part.strip() for part in given.split(",") if part.strip())
        return values

    @field_validator("models")
    @classmethod
    def _can_be_read(cls, models: str) -> str:
        parse_models(models)
        return models

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        return device if device == AUTO else check_device(device)

    @field_validator("devices")
    @classmethod
    def _are_devices(cls, devices: str) -> str:
        parse_devices(devices)
        return devices

    @field_validator("otlp_endpoint", "s3_endpoint")
    @classmethod
    def _is_an_address(cls, endpoint: str | None) -> str | None:
        if endpoint is not None and not _HTTP_ADDRESS.fullmatch(endpoint):
            raise ValueError("must be an http:// or https:// address")
        return endpoint

    @field_validator("broker_url")
    @classmethod
    def _is_known(cls, url: str | None) -> str | None:
        if url is not None and url.partition("://")[0] not in _BROKERS:
            raise ValueError(f"must begin with one of {', '.join(f'{scheme}://' for scheme in _BROKERS)}")
        return url

    @field_validator("blob_url")
    @classmethod
    def _is_a_store(cls, url: str) -> str:
        place = urlsplit(url)
        if place.scheme not in ("", "file", "s3") or not (place.netloc or place.path.strip("/")):
            raise ValueError("must be file:///folder or s3://bucket/prefix")
        if place.scheme == "s3" and not place.netloc:
            raise ValueError("names no bucket: s3://bucket/prefix")
        return url

    @property
    def is_private(self) -> bool:
        """Whether only trusted machines reach the API."""
        if self.trusted_network or self.host == "localhost":
            return True
        try:
            return ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def broker(self) -> str:
        """Where the hints go."""
        return self.broker_url or self.redis_url

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key must be given together")
        if self.blob_url.startswith("s3:") and self.max_upload_bytes > MOST_OBJECT_BYTES:
            raise ValueError(
                f"an object store takes no upload of more than {MOST_OBJECT_BYTES / 2**30:.1f} GiB"
            )
        if self.webhook_secret_previous and not self.webhook_secret:
            raise ValueError("webhook_secret_previous needs a webhook_secret")
        if self.hint_s > self.lease_s * 10:
            raise ValueError("hint_s must not be more than ten times lease_s")
        return self


def load(secrets_dir: Path = SECRETS_DIR) -> Settings:
    """Reads the environment, and from `secrets_dir` what is not set there.

    Raises SettingsError, in one sentence for all that is wrong, unknown names included.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    secrets = secret_files(secrets_dir, PREFIX)
    names = [name for name in sorted(os.environ) if name.startswith(PREFIX) and name not in _OF_CLIENTS]
    wrong = [f"{name} is not a setting" for name in names if name not in known]
    wrong += [f"{path} is not a setting" for path in secrets if path.name.upper() not in known]
    faults = [f"{path} {fault}" for path in secrets if (fault := fault_of(path))]
    wrong += faults
    try:
        settings = Settings(_secrets_dir=secrets_dir if secrets and not faults else None)
    except ValidationError as error:
        for problem in error.errors():
            name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "the settings together"
            wrong.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    else:
        if not wrong:
            return settings
    raise SettingsError("; ".join(wrong) + ". See docs/configuration.md.")
