"""All settings, read once from `ANANSE_*` and passed on as one frozen value. No other file reads the
environment. docs/configuration.md is checked against this class by a test."""

import os
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from shared.models import parse_models

PREFIX = "ANANSE_"
OBJECT_PART_BYTES = 5 * 2**20
"""The least an object store takes as a part of an upload."""
MOST_OBJECT_BYTES = OBJECT_PART_BYTES * 10_000
"""And that is the most parts it takes."""


class SettingsError(Exception):
    """One sentence that says which settings are wrong and what to do."""


class Settings(BaseSettings):
    """Where the service stands and how much it takes. Sizes in bytes, times in seconds."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, frozen=True, extra="forbid", env_ignore_empty=True, allow_inf_nan=False
    )

    # Where things are
    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Job store and Celery broker; `unix://` and `rediss://` work too. "
        "Left out, `ananse up` starts one.",
    )
    blob_url: str = Field(
        "file://./var/blobs",
        description="Where media, audio parts and transcripts lie: `file:///folder` or `s3://bucket/prefix`.",
    )
    models: str = Field(
        "models/synthetic-en",
        description="Models to serve, separated by commas, each a hub id or a folder: "
        "`[alias=]source[@revision][?window_s=8]`. The first is the default.",
    )
    hf_endpoint: str | None = Field(None, description="Another model hub than the public one.")

    # Object store
    s3_endpoint: str | None = Field(
        None,
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
        64, description="Threads of each API process; a waiting client holds one."
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
    device: Literal["auto", "cpu", "cuda"] = Field("auto", description="Where the model runs.")
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = Field(
        "auto", description="Number format of the model; `auto` takes bfloat16 where the processor has it."
    )
    threads: Annotated[int, Field(ge=0, le=256)] = Field(
        0, description="Threads of the model; 0 takes the processor's cores."
    )
    batch_size: Annotated[int, Field(ge=1, le=256)] = Field(8, description="Most windows in one model pass.")
    prepare_slots: Annotated[int, Field(ge=1, le=64)] = Field(
        2, description="Short files a worker decodes at once, and as many long ones beside them."
    )
    part_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        8, description="Short parts a worker transcribes at once, and as many long ones beside them."
    )
    deliver_slots: Annotated[int, Field(ge=1, le=256)] = Field(
        4, description="Webhooks a worker sends at once."
    )
    decode_timeout_s: Annotated[float, Field(ge=1)] = Field(1800, description="Longest decode of one file.")
    decode_memory_bytes: Annotated[int, Field(ge=2**27)] = Field(
        2**30, description="Memory the decoder may take."
    )
    batch_timeout_s: Annotated[float, Field(ge=10)] = Field(
        600, description="A worker whose model works on one batch for longer ends itself and is started anew."
    )
    deaf_s: Annotated[float, Field(ge=1)] = Field(
        30, description="A worker that has room, but fetched no waiting message for so long, starts anew."
    )
    memory_growth_bytes: Annotated[int, Field(ge=0)] = Field(
        4 * 2**30,
        description="A worker that grew by more since it was ready hands its work back and starts anew; "
        "0 for no bound.",
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

    # Flower and logs
    flower_port: Annotated[int, Field(ge=0, le=65535)] = Field(
        5555, description="Port of Flower, bound to `ANANSE_HOST`."
    )
    flower_user: str = Field("ananse", description="User name of Flower.")
    flower_password: SecretStr | None = Field(
        None, description="Password of Flower; made and printed at start when left out."
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="Least level logged.")
    state_dir: Path = Field(Path("var"), description="Where `ananse up` keeps its Redis, sockets and logs.")

    @model_validator(mode="before")
    @classmethod
    def _split_lists(cls, values: dict[str, object]) -> dict[str, object]:
        for name in ("webhook_allow", "webhook_retry_s"):
            given = values.get(name)
            if isinstance(given, str):
                values[name] = tuple(part.strip() for part in given.split(",") if part.strip())
        return values

    @field_validator("models")
    @classmethod
    def _can_be_read(cls, models: str) -> str:
        parse_models(models)
        return models

    @field_validator("blob_url")
    @classmethod
    def _is_a_store(cls, url: str) -> str:
        place = urlsplit(url)
        if place.scheme not in ("", "file", "s3") or not (place.netloc or place.path.strip("/")):
            raise ValueError("must be file:///folder or s3://bucket/prefix")
        if place.scheme == "s3" and not place.netloc:
            raise ValueError("names no bucket: s3://bucket/prefix")
        return url

    @field_validator("s3_endpoint")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None and not (urlsplit(url).scheme in ("http", "https") and urlsplit(url).netloc):
            raise ValueError("must begin with http:// or https://")
        return url

    @model_validator(mode="after")
    def _agree(self) -> Self:
        if (self.s3_access_key_id is None) != (self.s3_secret_access_key is None):
            raise ValueError("s3_access_key_id and s3_secret_access_key must be given together")
        if self.blob_url.startswith("s3:") and self.max_upload_bytes > MOST_OBJECT_BYTES:
            raise ValueError(
                f"an object store takes no upload of more than {MOST_OBJECT_BYTES / 2**30:.1f} GiB"
            )
        if self.hint_s > self.lease_s * 10:
            raise ValueError("hint_s must not be more than ten times lease_s")
        return self


def load() -> Settings:
    """Reads the environment.

    Raises SettingsError, in one sentence for all that is wrong, unknown names included.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    wrong = [
        f"{name} is not a setting"
        for name in sorted(os.environ)
        if name.startswith(PREFIX) and name not in known
    ]
    try:
        settings = Settings()
    except ValidationError as error:
        for problem in error.errors():
            name = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "the settings together"
            wrong.append(f"{name}: {problem['msg'].removeprefix('Value error, ')}")
    else:
        if not wrong:
            return settings
    raise SettingsError("; ".join(wrong) + ". See docs/configuration.md.")
