"""Gets recordings from buckets, with the service's own credentials. Only from those that the operator named:
whoever may submit a job may read all that lies in them."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

from shared.blob_store import BlobMissing
from shared.bucket import Bucket
from shared.errors import BlobUnavailable, FetchBlocked, FetchFailed, FetchRefused
from shared.s3_client import Access
from shared.source import Source
from worker.connections import Budget
from worker.fetcher import Download, named, refuse_larger


class BucketFetcher:
    """`s3://bucket/key`. Each chunk has the object store's own bounds of time, all of them `timeout_s`."""

    def __init__(self, buckets: Sequence[str], access: Access, timeout_s: float, max_bytes: int) -> None:
        self._buckets = {bucket: Bucket(bucket, "", access) for bucket in buckets}
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes

    @contextmanager
    def fetch(self, source: Source) -> Iterator[Download]:
        name, _, key = source.url.removeprefix("s3://").partition("/")
        bucket = self._buckets.get(name)
        if bucket is None or not key:
            raise FetchBlocked("The address names a bucket that this service does not read from.")
        with ExitStack() as held:
            # What goes wrong where the recording is put is not the bucket's fault.
            with _told():
                size_bytes = bucket.size(key)
                refuse_larger(size_bytes, self._max_bytes)
                chunks = held.enter_context(bucket.reading(key))
            yield Download(size_bytes, self._bounded(chunks))

    def _bounded(self, chunks: Iterator[bytes]) -> Iterator[bytes]:
        budget, got = Budget(self._timeout_s), 0
        with _told(), named():
            for chunk in chunks:
                budget.left_s()
                got += len(chunk)
                refuse_larger(got, self._max_bytes)
                yield chunk


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except BlobMissing as error:
        raise FetchRefused("There is no such object.") from error
    except BlobUnavailable as error:
        raise FetchFailed("The object store does not give it.") from error
