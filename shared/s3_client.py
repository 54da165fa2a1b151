"""A client of an object store that speaks S3. The only file that knows botocore: the errors it raises become
ours here, and what is wrong from the start becomes one sentence."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, ParamValidationError
from botocore.parsers import ResponseParserError
from botocore.session import Session
from urllib3.exceptions import HTTPError

from shared.blob_store import BlobMissing
from shared.errors import BlobUnavailable, StorageFull
from shared.log import get_logger
from shared.settings import Settings, SettingsError

CONNECT_S = 3.0
ANSWER_S = 10.0
ATTEMPTS = 2
"""A store that stands still is given up when each attempt has waited for so long, and a second in between."""

_CONNECTIONS = 64
_RETRY_S = 5.0
_FOREIGN = (BotoCoreError, ClientError, ResponseParserError, HTTPError)
_GONE = ("NoSuchKey", "NoSuchUpload")
# As MinIO and Ceph say it; others answer with the status for it.
_FULL = ("XMinioStorageFull", "QuotaExceeded")
_FULL_STATUS = 507
_UNKNOWN_KEY = ("InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken")
_WRONG_REGION = ("AuthorizationHeaderMalformed", "PermanentRedirect", "301")
_PASSING_STATUS = (408, 429)

_log = get_logger()


class NoSuchRange(Exception):
    """The object has fewer bytes than were asked for."""


@dataclass(frozen=True, slots=True)
class Access:
    """How the store is reached. What is None is looked for where AWS's own programs look: environment,
    profile, the role of the machine."""

    endpoint: str | None = None
    region: str | None = None
    addressing: str = "auto"
    key_id: str | None = None
    secret: str | None = field(default=None, repr=False)

    @property
    def where(self) -> str:
        return self.endpoint or "AWS"


def access_of(settings: Settings) -> Access:
    secret = settings.s3_secret_access_key
    return Access(
        endpoint=settings.s3_endpoint,
        region=settings.s3_region,
        addressing=settings.s3_addressing,
        key_id=settings.s3_access_key_id,
        secret=secret.get_secret_value() if secret else None,
    )


def make_client(access: Access) -> Any:
    """Safe to share between threads, but not across a fork. Raises SettingsError."""
    session = Session()
    config = Config(
        connect_timeout=CONNECT_S,
        read_timeout=ANSWER_S,
        retries={"total_max_attempts": ATTEMPTS, "mode": "standard"},
        max_pool_connections=_CONNECTIONS,
        s3={"addressing_style": access.addressing},
        # Checksums of AWS's own kind are refused by stores older than 2025. Content-MD5 all of them check.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )
    try:
        return session.create_client(
            "s3",
            region_name=access.region or session.get_config_variable("region") or "us-east-1",
            endpoint_url=access.endpoint,
            aws_access_key_id=access.key_id,
            aws_secret_access_key=access.secret,
            config=config,
        )
    except (ValueError, BotoCoreError) as error:
        raise SettingsError(f"ANANSE_S3_ENDPOINT, ANANSE_S3_REGION: {_line(error)}") from error


@contextmanager
def translated() -> Iterator[None]:
    """Raises BlobMissing, BlobUnavailable, StorageFull, NoSuchRange for whatever botocore raises inside."""
    try:
        yield
    except _FOREIGN as error:
        code, status = _answer(error)
        if code in _GONE:
            raise BlobMissing() from error
        if code == "InvalidRange":
            raise NoSuchRange() from error
        # Clients are told no more than that it does not answer; the operator is to know why.
        _log.warning("object_store_failed", reason=code)
        is_full = code in _FULL or status == _FULL_STATUS
        raise (StorageFull if is_full else BlobUnavailable)(retry_after_s=_RETRY_S) from error


@contextmanager
def judged(bucket: str, access: Access) -> Iterator[None]:
    """For the first requests of a process. Raises SettingsError, which says what to do, when the store
    answers that it will not have this; one that does not answer may yet come up, and is only logged."""
    try:
        yield
    except _FOREIGN as error:
        reproach = _reproach(error, bucket, access)
        if reproach is not None:
            raise SettingsError(reproach) from error
        _log.warning("object_store_away", reason=_answer(error)[0])


def _reproach(error: Exception, bucket: str, access: Access) -> str | None:
    code, status = _answer(error)
    keys = "ANANSE_S3_ACCESS_KEY_ID, ANANSE_S3_SECRET_ACCESS_KEY"
    if isinstance(error, NoCredentialsError):
        return f"{keys}: no credentials for the object store were found; set them, or give the machine a role"
    if isinstance(error, (ParamValidationError, ResponseParserError)):
        return f"ANANSE_BLOB_URL, ANANSE_S3_ENDPOINT: {_line(error)}"
    if not 300 <= status < 500 or status in _PASSING_STATUS:
        return None
    if code == "NoSuchBucket":
        return f"ANANSE_BLOB_URL: there is no bucket {bucket!r} at {access.where}; make it, or name another"
    if code in _UNKNOWN_KEY:
        return f"{keys}: the object store at {access.where} does not know these credentials ({code})"
    if code in _WRONG_REGION:
        return f"ANANSE_S3_REGION: the bucket {bucket!r} is in another region ({code})"
    act = getattr(error, "operation_name", "access")
    return (
        f"ANANSE_BLOB_URL: the object store at {access.where} refuses {act} in the bucket {bucket!r} "
        f"({code}); docs/storage.md lists the rights it takes"
    )


def _answer(error: Exception) -> tuple[str, int]:
    """The store's own word for it and the HTTP status; 0 when there was no answer."""
    if not isinstance(error, ClientError):
        return type(error).__name__, 0
    about = error.response
    return str(about["Error"].get("Code", "")), int(about["ResponseMetadata"].get("HTTPStatusCode", 0))


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
