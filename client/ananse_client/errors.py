"""Every failure by its name. The service's codes are permanent, so each has a class here; a code that this
version does not know yet becomes the class of its kind.

    AnanseError
    ├─ Unreachable          no answer came
    ├─ InvalidSignature     a webhook that is not from the service
    ├─ WaitTimeout          the job goes on, the patience given is over
    └─ ServiceError         has a `code`
       ├─ RequestError      ask otherwise
       ├─ JobError          this recording cannot be transcribed
       └─ Unavailable       ask again later
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar


class AnanseError(Exception):
    """Base of all."""


class Unreachable(AnanseError):
    """Nobody answered at the address, or the connection broke."""


class InvalidSignature(AnanseError):
    """The webhook is not signed with the secret, or too old."""


class WaitTimeout(AnanseError):
    """The job had not ended in time; it goes on."""

    def __init__(self, job_id: str, seconds: float) -> None:
        super().__init__(f"{job_id} has not ended within {seconds:g} s; it goes on")
        self.job_id = job_id


@dataclass(frozen=True)
class Problem:
    """What the service says is wrong. `status` is None for the failure of a job that was read."""

    code: str
    detail: str = ""
    status: "int | None" = None
    request_id: str = ""
    retryable: "bool | None" = None
    retry_after_s: "float | None" = None
    job_id: str = ""


class ServiceError(AnanseError):
    """The service said no; `code` says why, in a word that never changes."""

    code: ClassVar[str] = ""
    kind_is_retryable: ClassVar[bool] = False

    def __init__(self, problem: Problem) -> None:
        super().__init__(f"{problem.code}: {problem.detail}" if problem.detail else problem.code)
        self.problem = problem

    @property
    def detail(self) -> str:
        return self.problem.detail

    @property
    def request_id(self) -> str:
        return self.problem.request_id

    @property
    def retryable(self) -> bool:
        """Whether the same request may succeed later."""
        told = self.problem.retryable
        return self.kind_is_retryable if told is None else told


class RequestError(ServiceError):
    """The request can be put right."""


class JobError(ServiceError):
    """The job ended as failed."""


class JobCanceled(JobError):
    """The job was canceled, by somebody."""

    code = "canceled"


class Unavailable(ServiceError):
    """Something the service stands on is away or full."""

    kind_is_retryable = True


class InvalidRequest(RequestError):
    code = "invalid_request"


class InvalidOption(RequestError):
    code = "invalid_option"


class UnknownModel(RequestError):
    code = "unknown_model"


class UnsupportedOption(RequestError):
    code = "unsupported_option"


class Unauthorized(RequestError):
    code = "unauthorized"


class TooManyWrongKeys(RequestError):
    """Waiting makes none of them right."""

    code = "too_many_wrong_keys"


class Forbidden(RequestError):
    code = "forbidden"


class NotFound(RequestError):
    code = "not_found"


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"


class NotAcceptable(RequestError):
    code = "not_acceptable"


class NotReady(RequestError):
    code = "not_ready"
    kind_is_retryable = True


class NoTranscript(RequestError):
    code = "no_transcript"


class JobEnded(RequestError):
    code = "job_ended"


class IdempotencyMismatch(RequestError):
    code = "idempotency_mismatch"


class Expired(RequestError):
    code = "expired"


class LengthRequired(RequestError):
    code = "length_required"


class TooLarge(RequestError):
    code = "too_large"


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"


class IncompleteUpload(RequestError):
    code = "incomplete_upload"
    kind_is_retryable = True


class UrlIngestUnavailable(RequestError):
    code = "url_ingest_unavailable"


class HeadersTooLarge(RequestError):
    code = "headers_too_large"


class RangeNotSatisfiable(RequestError):
    code = "range_not_satisfiable"


class UnsupportedEncoding(RequestError):
    code = "unsupported_encoding"


class UriTooLong(RequestError):
    code = "uri_too_long"


class FetchBlocked(JobError):
    code = "fetch_blocked"


class FetchFailed(JobError):
    code = "fetch_failed"


class FetchRefused(JobError):
    code = "fetch_refused"


class FetchTimeout(JobError):
    code = "fetch_timeout"


class FetchTooLarge(JobError):
    code = "fetch_too_large"


class UnsupportedFormat(JobError):
    code = "unsupported_format"


class NoAudio(JobError):
    code = "no_audio"


class EmptyAudio(JobError):
    code = "empty_audio"


class CorruptAudio(JobError):
    code = "corrupt_audio"


class TooLong(JobError):
    code = "too_long"


class DecodeLimit(JobError):
    code = "decode_limit"


class DecodeTimeout(JobError):
    code = "decode_timeout"


class DecoderCrashed(JobError):
    code = "decoder_crashed"


class OutOfMemory(JobError):
    code = "out_of_memory"


class DeadlineExceeded(JobError):
    code = "deadline_exceeded"


class WorkerCrashed(JobError):
    code = "worker_crashed"


class ModelError(JobError):
    code = "model_error"


class MediaMissing(JobError):
    code = "media_missing"


class Internal(JobError):
    code = "internal"


class ServiceUnavailable(Unavailable):
    code = "unavailable"


class StoreUnavailable(Unavailable):
    code = "store_unavailable"


class StorageFull(Unavailable):
    code = "storage_full"


class StorageUnavailable(Unavailable):
    code = "storage_unavailable"


class BacklogFull(Unavailable):
    code = "backlog_full"


class Rebuilding(Unavailable):
    code = "rebuilding"


class NoWorker(Unavailable):
    code = "no_worker"


class RateLimited(Unavailable):
    code = "rate_limited"


class TooManyJobs(Unavailable):
    code = "too_many_jobs"


class TooMuchAudio(Unavailable):
    code = "too_much_audio"


class TooMuchStored(Unavailable):
    code = "too_much_stored"


def error_of(problem: Problem) -> ServiceError:
    """The error to raise."""
    return _class_of(problem)(problem)


def _class_of(problem: Problem) -> type[ServiceError]:
    if problem.code in BY_CODE:
        return BY_CODE[problem.code]
    if problem.status is None:
        return JobError
    return RequestError if problem.status < 500 and problem.status != 429 else Unavailable


def _all(root: type[ServiceError]) -> Iterator[type[ServiceError]]:
    for kind in root.__subclasses__():
        yield kind
        yield from _all(kind)


BY_CODE: dict[str, type[ServiceError]] = {kind.code: kind for kind in _all(ServiceError) if kind.code}
