"""The requests that blobs take, on one bucket and under one prefix: names and bytes go in and out."""

import base64
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shared.blob_store import BlobMissing
from shared.errors import BlobUnavailable
from shared.s3_client import Access, NoSuchRange, judged, make_client, translated

_CHUNK_BYTES = 2**20


@dataclass(frozen=True, slots=True)
class Begun:
    """An upload in parts that is not whole yet."""

    name: str
    upload_id: str
    begun_at: datetime


class Bucket:
    """Safe to share between threads, but not across a fork. Every method may raise BlobUnavailable."""

    def __init__(self, bucket: str, prefix: str, access: Access) -> None:
        """Raises SettingsError for an address that nobody understands."""
        self._bucket = bucket
        self._prefix = f"{prefix.strip('/')}/".lstrip("/")
        self._access = access
        self._client = make_client(access)

    def put(self, name: str, content: bytes) -> None:
        with translated():
            self._client.put_object(**self._at(name), Body=content, ContentMD5=_md5(content))

    @contextmanager
    def reading(self, name: str, first: int = 0, last: int | None = None) -> Iterator[Iterator[bytes]]:
        """The bytes from `first` to `last`, both included, in chunks. Raises BlobMissing, NoSuchRange."""
        whole = first == 0 and last is None
        span = {} if whole else {"Range": f"bytes={first}-{'' if last is None else last}"}
        with translated():
            body = self._client.get_object(**self._at(name), **span)["Body"]
            try:
                yield body.iter_chunks(_CHUNK_BYTES)
            finally:
                body.close()

    def read(self, name: str, first: int = 0, last: int | None = None) -> bytes:
        """Raises BlobMissing, NoSuchRange."""
        with self.reading(name, first, last) as chunks:
            return b"".join(chunks)

    def size(self, name: str) -> int:
        """Raises BlobMissing.

        Asked for with the first byte: an answer to HEAD has no body that could tell a missing object from a
        missing bucket.
        """
        try:
            with translated():
                answer = self._client.get_object(**self._at(name), Range="bytes=0-0")
                answer["Body"].read()
        except NoSuchRange:
            return 0
        return int(answer["ContentRange"].rpartition("/")[2])

    def copy(self, source: str, target: str, part_bytes: int) -> None:
        """Within the store, in parts of this size: one request for all of a large object may take longer than
        an answer is waited for, and is refused above 5 GiB. Raises BlobMissing."""
        size = self.size(source)
        if size <= part_bytes:
            with translated():
                self._client.copy_object(**self._at(target), CopySource=self._at(source))
            return
        with self.begin(target) as upload:
            for first in range(0, size, part_bytes):
                upload.add_copy(self._at(source), first, min(first + part_bytes, size) - 1)
            upload.complete()

    def delete(self, name: str) -> None:
        with translated():
            self._client.delete_object(**self._at(name))

    def names(self, under: str) -> Iterator[tuple[str, datetime]]:
        """Everything that begins with `under`, and when it was written."""
        for page in self._pages(Prefix=self._prefix + under):
            for row in page.get("Contents", ()):
                yield row["Key"].removeprefix(self._prefix), row["LastModified"]

    def directly(self, under: str) -> Iterator[str]:
        """What stands between `under` and the next slash, or the end; an object that is named as the folder
        itself, as some stores and programs make them, is not in it."""
        start = len(self._prefix + under)
        for page in self._pages(Prefix=self._prefix + under, Delimiter="/"):
            for row in page.get("Contents", ()):
                if name := row["Key"][start:]:
                    yield name
            for row in page.get("CommonPrefixes", ()):
                yield row["Prefix"][start:].rstrip("/")

    def begin(self, name: str) -> "Multipart":
        with translated():
            answer = self._client.create_multipart_upload(**self._at(name))
        return Multipart(self._client, self._at(name), answer["UploadId"])

    def begun(self) -> Iterator[Begun]:
        """All uploads that are not whole."""
        marks: dict[str, str] = {}
        while True:
            with translated():
                page = self._client.list_multipart_uploads(Bucket=self._bucket, Prefix=self._prefix, **marks)
            for row in page.get("Uploads", ()):
                yield Begun(row["Key"].removeprefix(self._prefix), row["UploadId"], row["Initiated"])
            if not page.get("IsTruncated"):
                return
            marks = {"KeyMarker": page["NextKeyMarker"], "UploadIdMarker": page["NextUploadIdMarker"]}

    def last_added_at(self, begun: Begun) -> datetime:
        """When an upload was last added to. Raises BlobMissing when it is gone or whole by now."""
        latest: datetime = begun.begun_at
        marks: dict[str, int] = {}
        while True:
            with translated():
                page = self._client.list_parts(**self._at(begun.name), UploadId=begun.upload_id, **marks)
            for row in page.get("Parts", ()):
                latest = max(latest, row["LastModified"])
            if not page.get("IsTruncated"):
                return latest
            marks = {"PartNumberMarker": page["NextPartNumberMarker"]}

    def abort(self, begun: Begun) -> None:
        """Raises BlobMissing when it is gone or whole by now."""
        Multipart(self._client, self._at(begun.name), begun.upload_id).abort()

    def check(self) -> None:
        """Raises BlobUnavailable when the bucket is not there."""
        with translated():
            self._look()

    def judge(self) -> None:
        """Lists, writes and deletes once. Raises SettingsError when the store answers that it may not."""
        with judged(self._bucket, self._access):
            self._look()
            self._client.put_object(**self._at("writable"), Body=b"")
            self._client.delete_object(**self._at("writable"))

    def _look(self) -> None:
        self._client.list_objects_v2(Bucket=self._bucket, Prefix=self._prefix, MaxKeys=1)

    def _pages(self, **what: str) -> Iterator[dict[str, Any]]:
        token: dict[str, str] = {}
        while True:
            with translated():
                page = self._client.list_objects_v2(Bucket=self._bucket, **what, **token)
            yield page
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def _at(self, name: str) -> dict[str, str]:
        return {"Bucket": self._bucket, "Key": self._prefix + name}


class Multipart:
    """An upload in parts: nobody sees it before it is complete, and at the end of the block it is that or
    gone."""

    def __init__(self, client: Any, at: dict[str, str], upload_id: str) -> None:
        self._client = client
        self._at = {**at, "UploadId": upload_id}
        self._parts: list[dict[str, Any]] = []
        self._is_open = True

    def __enter__(self) -> "Multipart":
        return self

    def __exit__(self, *_: object) -> None:
        if self._is_open:
            # What cannot be cleared away now is found by whoever looks for drafts that were given up.
            with suppress(BlobMissing, BlobUnavailable):
                self.abort()

    @property
    def _next(self) -> int:
        return len(self._parts) + 1

    def add(self, content: bytes) -> None:
        with translated():
            answer = self._client.upload_part(
                **self._at, PartNumber=self._next, Body=content, ContentMD5=_md5(content)
            )
        self._parts.append({"PartNumber": self._next, "ETag": answer["ETag"]})

    def add_copy(self, source: dict[str, str], first: int, last: int) -> None:
        """Of bytes that lie in the store already. Raises BlobMissing."""
        with translated():
            answer = self._client.upload_part_copy(
                **self._at,
                PartNumber=self._next,
                CopySource=source,
                CopySourceRange=f"bytes={first}-{last}",
            )
        self._parts.append({"PartNumber": self._next, "ETag": answer["CopyPartResult"]["ETag"]})

    def complete(self) -> None:
        with translated():
            self._client.complete_multipart_upload(**self._at, MultipartUpload={"Parts": self._parts})
        self._is_open = False

    def abort(self) -> None:
        """Raises BlobMissing when there is none any more."""
        with translated():
            self._client.abort_multipart_upload(**self._at)


def _md5(content: bytes) -> str:
    """What Content-MD5 says: the store refuses bytes that changed on their way."""
    return base64.b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()
