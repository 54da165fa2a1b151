"""Every failure has a name here. A `code` is public and permanent: the same word stands in the problem
document, in the job's failure and in the webhook.

    ServiceError
    ├─ RequestError     the client can fix it    4xx problem document     never retried
    ├─ JobError         this job cannot go on    failure on the job       retried only if the class says so
    └─ DependencyError  Redis, disk or network   503, or the step again   retried with backoff
"""

from typing import ClassVar


class ServiceError(Exception):
    """Base of all our errors; `detail` is a sentence a client may read (no paths, no traces)."""

    code: ClassVar[str] = "internal"
    title: ClassVar[str] = "Something went wrong on our side"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = True

    def __init__(self, detail: str = "", *, retry_after_s: float | None = None) -> None:
        super().__init__(detail or self.title)
        self.detail = detail or self.title
        self.retry_after_s = retry_after_s


class RequestError(ServiceError):
    code = "invalid_request"
    title = "The request is not valid"
    status = 400
    retryable = False


class InvalidOption(RequestError):
    code = "invalid_option"
    title = "An option is not valid"
    status = 422


class UnknownModel(RequestError):
    code = "unknown_model"
    title = "No such model is served here"
    status = 422


class UnsupportedOption(RequestError):
    code = "unsupported_option"
    title = "The model cannot do this"
    status = 422


class Unauthorized(RequestError):
    code = "unauthorized"
    title = "An API key is needed"
    status = 401


class Forbidden(RequestError):
    code = "forbidden"
    title = "The API key may not do this"
    status = 403


class NotFound(RequestError):
    code = "not_found"
    title = "There is nothing here"
    status = 404


class MethodNotAllowed(RequestError):
    code = "method_not_allowed"
    title = "This address does not take this method"
    status = 405


class NotAcceptable(RequestError):
    code = "not_acceptable"
    title = "None of the accepted formats can be given"
    status = 406


class NotReady(RequestError):
    code = "not_ready"
    title = "The job has not ended yet"
    status = 409
    retryable = True


class NoTranscript(RequestError):
    code = "no_transcript"
    title = "The job ended without a transcript"
    status = 409


class JobEnded(RequestError):
    code = "job_ended"
    title = "The job has already ended"
    status = 409


class IdempotencyMismatch(RequestError):
    code = "idempotency_mismatch"
    title = "This Idempotency-Key was used with another request"
    status = 409


class Expired(RequestError):
    code = "expired"
    title = "The job's data has expired and was deleted"
    status = 410


class LengthRequired(RequestError):
    code = "length_required"
    title = "The request needs a body"
    status = 411


class UploadTooLarge(RequestError):
    code = "too_large"
    title = "The upload is larger than this service takes"
    status = 413


class UnsupportedMediaType(RequestError):
    code = "unsupported_media_type"
    title = "This kind of request body is not understood"
    status = 415


class UnsupportedEncoding(RequestError):
    code = "unsupported_encoding"
    title = "The request body is compressed or coded in a way that is not taken here"
    status = 415


class UriTooLong(RequestError):
    code = "uri_too_long"
    title = "The request's address is too long"
    status = 414


class RangeNotSatisfiable(RequestError):
    code = "range_not_satisfiable"
    title = "The recording has no such range of bytes"
    status = 416


class HeadersTooLarge(RequestError):
    code = "headers_too_large"
    title = "The request's headers are too many or too large"
    status = 431


class IncompleteUpload(RequestError):
    code = "incomplete_upload"
    title = "The upload ended before its declared length"
    status = 400
    retryable = True


class LimitReached(RequestError):
    """The same call may go through later: Retry-After says when."""

    code = "rate_limited"
    title = "The API key makes more requests than it may"
    status = 429
    retryable = True


class TooManyWrongKeys(LimitReached):
    """A right key from the same address is let in all the same."""

    code = "too_many_wrong_keys"
    title = "Too many wrong API keys came from this address"
    retryable = False


class TooManyJobs(LimitReached):
    code = "too_many_jobs"
    title = "The API key has as many unfinished jobs as it may have"


class TooMuchAudio(LimitReached):
    code = "too_much_audio"
    title = "The unfinished jobs of the API key owe as much audio as they may"


class TooMuchStored(LimitReached):
    code = "too_much_stored"
    title = "The recordings of the API key take as much room as they may"


class UrlIngestUnavailable(RequestError):
    code = "url_ingest_unavailable"
    title = "This server does not fetch audio from addresses"
    status = 501


class JobError(ServiceError):
    """Ends the job as `failed` with this code; `status` is what a waiting HTTP call answers.

    A step is begun `tries` times before this error ends its job.
    """

    tries: ClassVar[int] = 1
    code = "internal"
    status = 422
    retryable = False


class UnsupportedFormat(JobError):
    code = "unsupported_format"
    title = "The file is not in an audio or video format that is taken here"


class NoAudio(JobError):
    code = "no_audio"
    title = "The file holds no audio track"


class EmptyAudio(JobError):
    code = "empty_audio"
    title = "The audio track is empty"


class CorruptAudio(JobError):
    code = "corrupt_audio"
    title = "The audio is damaged and could not be decoded"


class TooLong(JobError):
    code = "too_long"
    title = "The recording is longer than this service takes"


class DecodeLimit(JobError):
    code = "decode_limit"
    title = "Decoding would take more than its bounds allow"


class DecodeTimeout(JobError):
    code = "decode_timeout"
    title = "Decoding took too long"
    retryable = True


class DecoderCrashed(JobError):
    code = "decoder_crashed"
    title = "The decoder crashed on this file"
    tries = 3


class OutOfMemory(JobError):
    code = "out_of_memory"
    title = "The job needed more memory than there is"
    tries = 2
    retryable = True


class FetchBlocked(JobError):
    code = "fetch_blocked"
    title = "The recording lies where this service does not go"


class FetchFailed(JobError):
    """The network, or a server that may do better soon."""

    code = "fetch_failed"
    title = "The recording could not be fetched"
    tries = 3
    status = 502
    retryable = True


class FetchRefused(JobError):
    """The server's answer was clear: it would be the same again."""

    code = "fetch_refused"
    title = "The server of the recording does not give it"
    status = 422


class FetchTimeout(JobError):
    code = "fetch_timeout"
    title = "The recording came too slowly"
    tries = 2
    status = 504
    retryable = True


class FetchTooLarge(JobError):
    code = "fetch_too_large"
    title = "The recording at that address is larger than this service takes"


class DeadlineExceeded(JobError):
    code = "deadline_exceeded"
    title = "The job did not end within its deadline"
    status = 504
    retryable = True


class WorkerCrashed(JobError):
    code = "worker_crashed"
    title = "Workers died on this job too often"
    status = 500


class ModelError(JobError):
    code = "model_error"
    title = "The model failed on this recording"
    tries = 2
    status = 500
    retryable = True


class MediaMissing(JobError):
    code = "media_missing"
    title = "The stored recording is gone"
    status = 500


class CannotDo(JobError):
    """What UnsupportedOption is at submit, found out only by the worker that holds the model."""

    code = "unsupported_option"
    title = "The model cannot do this"


class Internal(JobError):
    code = "internal"
    title = "Something went wrong on our side"
    tries = 3
    status = 500
    retryable = True


class DependencyError(ServiceError):
    """Something we stand on is away or full; the same call may succeed later."""

    code = "unavailable"
    title = "The service is not available at the moment"
    status = 503


class StoreUnavailable(DependencyError):
    code = "store_unavailable"
    title = "The job store does not answer"


class StorageFull(DependencyError):
    code = "storage_full"
    title = "There is no room for more recordings at the moment"
    status = 507


class BlobUnavailable(DependencyError):
    code = "storage_unavailable"
    title = "The file store does not answer"


class BacklogFull(DependencyError):
    code = "backlog_full"
    title = "More audio waits than this service takes on"


class Rebuilding(DependencyError):
    code = "rebuilding"
    title = "The job store lost its records and they are being made again"


class NoWorker(DependencyError):
    code = "no_worker"
    title = "No worker is up for this model"
