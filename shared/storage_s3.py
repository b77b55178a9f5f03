"""The store behind `shared.storage` in a bucket: plain boto3, signature version 4, path-style addresses."""

from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError

from shared.storage import (
    CHUNK,
    MissingArtifact,
    StoreAway,
    StoreError,
    check_key,
    check_prefix,
    check_range,
    checked,
    full,
    missing,
    taken,
)

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

FULL_CODES = {"XMinioStorageFull", "InsufficientStorage", "XMinioAdminBucketQuotaExceeded", "QuotaExceeded"}


def connect(endpoint: str | None, access_key: str | None, secret_key: str | None, region: str) -> "S3Client":
    """Return a client that many threads may share. Nothing is sent yet."""
    return boto3.session.Session().client(
        "s3",
        endpoint_url=endpoint,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        region_name=region,
        config=Config(
            signature_version="s3v4",
            s3={"addressing_style": "path"},
            request_checksum_calculation="when_required",  # not every S3 server knows checksum trailers
            response_checksum_validation="when_required",
            retries={"mode": "standard", "total_max_attempts": 4},
            connect_timeout=5,
            read_timeout=30,
        ),
    )


class S3Store:
    """A store in a bucket of any S3 server that honours If-None-Match (AWS, MinIO, SeaweedFS, …)."""

    def __init__(self, client: "S3Client", bucket: str, prefix: str = "") -> None:
        self._client, self._bucket = client, bucket
        self._prefix = f"{check_key(prefix)}/" if prefix else ""
        with _s3_errors(f"the bucket {bucket}"):
            try:
                self._look()
            except ClientError as error:
                if _status(error) != 404:
                    raise
                with suppress(client.exceptions.BucketAlreadyOwnedByYou):  # another service was quicker
                    client.create_bucket(Bucket=bucket)

    def check(self) -> None:
        with _s3_errors(f"the bucket {self._bucket}"):
            self._look()

    def _look(self) -> None:
        """Raise the server's error unless it has the bucket, or may not say so to this account.

        The server is then asked for an object that does not exist: its answer tells whether it knows the
        account and its secret.
        """
        try:
            self._client.head_bucket(Bucket=self._bucket)
            return
        except ClientError as error:
            if _status(error) != 403:
                raise
        try:
            self._client.get_object(Bucket=self._bucket, Key=self._name("no-such-object"))["Body"].close()
        except ClientError as error:
            if _code(error) not in ("NoSuchKey", "AccessDenied"):
                raise

    def put(self, key: str, data: bytes) -> None:
        with _s3_errors(key):
            try:
                self._client.put_object(Bucket=self._bucket, Key=self._name(key), Body=data, IfNoneMatch="*")
            except ClientError as error:
                if _status(error) not in (409, 412):
                    raise
                if not self.exists(key) or self.get(key) != data:
                    raise taken(key) from None

    def get(self, key: str, sha256: str | None = None) -> bytes:
        with (
            _s3_errors(key),
            closing(self._client.get_object(Bucket=self._bucket, Key=self._name(key))["Body"]) as body,
        ):
            return checked(key, body.read(), sha256)

    def open_range(self, key: str, start: int, end: int) -> Iterator[bytes]:
        check_range(key, start, end, self.size(key))
        return self._chunks(key, start, end) if start < end else iter(())

    def _chunks(self, key: str, start: int, end: int) -> Iterator[bytes]:
        with _s3_errors(key):
            answer = self._client.get_object(
                Bucket=self._bucket, Key=self._name(key), Range=f"bytes={start}-{end - 1}"
            )
            with closing(answer["Body"]) as body:
                yield from body.iter_chunks(CHUNK)

    def size(self, key: str) -> int:
        with _s3_errors(key):
            return int(self._client.head_object(Bucket=self._bucket, Key=self._name(key))["ContentLength"])

    def exists(self, key: str) -> bool:
        try:
            self.size(key)
        except MissingArtifact:
            return False
        return True

    def delete(self, key: str) -> None:
        with _s3_errors(key):
            self._client.delete_object(Bucket=self._bucket, Key=self._name(key))

    def list(self, prefix: str = "") -> Iterator[str]:
        check_prefix(prefix)
        pages = self._client.get_paginator("list_objects_v2")
        with _s3_errors(prefix):
            for page in pages.paginate(Bucket=self._bucket, Prefix=self._prefix + prefix):
                for item in page.get("Contents", []):
                    yield item["Key"].removeprefix(self._prefix)

    def _name(self, key: str) -> str:
        return self._prefix + check_key(key)


@contextmanager
def _s3_errors(key: str) -> Iterator[None]:
    try:
        yield
    except ClientError as error:
        code = _code(error)
        if _status(error) == 404:
            raise missing(key) from None
        if code in FULL_CODES or _status(error) == 507:
            raise full(key) from error
        if _status(error) >= 500:
            raise StoreAway(f"the S3 store is in trouble with {key}: {error}; look at its log") from error
        raise StoreError(f"the S3 store refused {key}: {error}; check its address, key and secret") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise StoreAway(f"the S3 store does not answer for {key}: {error}; is it running?") from error


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
