"""S3 through s3fs: a client with timeouts and retries, streams that lose nothing, and clear errors.

Credentials, region and endpoint come from the environment and ``~/.aws``, as botocore reads them:
``AWS_ACCESS_KEY_ID``, ``AWS_SECRET_ACCESS_KEY``, ``AWS_SESSION_TOKEN``, ``AWS_PROFILE``,
``AWS_DEFAULT_REGION``, ``AWS_ENDPOINT_URL`` (or ``AWS_ENDPOINT_URL_S3``).
"""

from __future__ import annotations

import io
import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import IO, Any, cast

from seqrec.errors import DataError, SeqrecError, StorageError

TRIES = 5
"""How often a request is tried when the server fails, throttles or drops the connection.

Waits get longer with each try. ``AWS_MAX_ATTEMPTS`` takes precedence.
"""
CONNECT_SECONDS = 2
"""How long a server may take to accept a connection."""
STALL_SECONDS = 15
"""How long a connection may be idle."""
WAIT_SECONDS = 0.1
"""Wait before an interrupted answer is requested again; doubled each time."""
PART = 16 << 20
"""Bytes of an upload that are buffered and sent as one part: S3 allows 10,000 parts, so 160 GiB."""
AHEAD = 8 << 20
"""Bytes read ahead."""

logger = logging.getLogger(__name__)


def is_s3(path: object) -> bool:
    """Whether a path is an address on S3."""
    return str(path).startswith(("s3://", "s3a://"))


def filesystem() -> Any:
    """The s3fs file system for the environment as it is now.

    Raises:
        StorageError: s3fs is not installed.
    """
    return _filesystem(
        tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    )


@lru_cache(maxsize=8)
def _filesystem(environment: tuple[tuple[str, str], ...]) -> Any:
    try:
        from s3fs import S3FileSystem
    except ImportError as error:
        raise StorageError(
            's3://: needs s3fs, which is not installed. Run: pip install "seqrec[s3]"'
        ) from error
    said = dict(environment)
    retries: dict[str, Any] = {"mode": said.get("AWS_RETRY_MODE", "standard")}
    if "AWS_MAX_ATTEMPTS" not in said:
        retries["total_max_attempts"] = TRIES
    config = {"retries": retries, "connect_timeout": CONNECT_SECONDS, "read_timeout": STALL_SECONDS}
    # No cache of instances, which would keep the credentials of another environment, nor of listings, which
    # would hide files written elsewhere.
    made = S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    made.retries = 1  # s3fs would do all of botocore's tries again: minutes, where the server is out of reach
    return made


def bucket_of(path: str) -> str:
    """The bucket of an address.

    Raises:
        DataError: it names no bucket, or one that S3 does not allow.
    """
    bucket = path.split("://", 1)[1].split("/", 1)[0]
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,255}", bucket):
        raise DataError(
            f"{path}: expected s3://bucket/key. Got {bucket!r} as the bucket; is a variable empty that "
            "should name it?"
        )
    return bucket


def check_key(path: str) -> None:
    """Checks that an address is of a file.

    Raises:
        DataError: it is of a bucket.
    """
    if not path.split("://", 1)[1].rstrip("/").partition("/")[2]:
        raise DataError(f"{path}: expected the address of a file, s3://bucket/key. Got that of a bucket.")


def check_bucket(path: str) -> None:
    """Checks that a bucket exists; S3 itself only says that its objects are not found.

    Raises:
        StorageError: there is no such bucket.
    """
    try:
        filesystem().call_s3("head_bucket", Bucket=bucket_of(path))
    except FileNotFoundError as error:
        raise _no_bucket(path) from error
    except PermissionError:
        return  # it is there; what may be done in it, the next request says


def _no_bucket(path: str) -> StorageError:
    return StorageError(
        f"{path}: there is no bucket {bucket_of(path)!r} at {_server()}. Correct the address, or "
        "create the bucket."
    )


def _server() -> str:
    return (
        os.environ.get("AWS_ENDPOINT_URL_S3")
        or os.environ.get("AWS_ENDPOINT_URL")
        or "the server of ~/.aws/config, or AWS"
    )


@contextmanager
def named(path: str) -> Iterator[None]:
    """Turns S3's errors within the block into a ``StorageError`` that names the path.

    A missing file stays a ``FileNotFoundError``.
    """
    bucket_of(path)
    try:
        yield
    except SeqrecError:
        raise
    except Exception as error:
        if meant := _explained(error, path):
            raise meant from error
        raise


def _explained(error: Exception, path: str) -> StorageError | None:
    """What an error means for the user; None for one that is not S3's."""
    import aiohttp
    from botocore import exceptions as aws
    from s3fs.utils import FileExpired

    answer = next((e for e in (error, error.__cause__) if isinstance(e, aws.ClientError)), None)
    what = " ".join(str(error).split())
    if answer is not None:
        code = answer.response.get("Error", {}).get("Code", "")
        what = f"{code}: {what}" if code and code not in what else what
        if code == "NoSuchBucket":
            return _no_bucket(path)
        if isinstance(error, FileNotFoundError):
            return None
        if isinstance(error, PermissionError):
            return StorageError(
                f"{path}: access denied by {_server()} ({what}). Check the credentials "
                "(AWS_ACCESS_KEY_ID, AWS_PROFILE) and what they may do: "
                "s3:GetObject, s3:PutObject, s3:DeleteObject and s3:ListBucket."
            )
        return StorageError(
            f"{path}: {_server()} refused or failed ({what}). Try again later, or check the address."
        )
    if isinstance(error, FileExpired):
        return StorageError(f"{path}: was changed by another program while it was read. Read it again.")
    if isinstance(
        error,
        aws.NoCredentialsError
        | aws.PartialCredentialsError
        | aws.CredentialRetrievalError
        | aws.ProfileNotFound,
    ):
        return StorageError(
            f"{path}: no AWS credentials ({what}). Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or AWS_PROFILE."
        )
    if isinstance(
        error, aws.ConnectionError | aws.HTTPClientError | aws.IncompleteReadError | aiohttp.ClientError
    ):
        return StorageError(
            f"{path}: the connection to {_server()} failed ({what}). Check AWS_ENDPOINT_URL and the "
            "network, then run it again."
        )
    if isinstance(error, aws.BotoCoreError):
        return StorageError(f"{path}: {what.rstrip('.')}.")
    return None


def open_read(path: str) -> IO[bytes]:
    """A seekable stream of an object's content.

    Raises:
        FileNotFoundError: there is no such object.
    """
    check_key(path)
    return cast(
        IO[bytes], io.BufferedReader(_Reader(path, filesystem().open(path, "rb", block_size=AHEAD)), 1 << 16)
    )


class _Reader(io.RawIOBase):
    """Resumes after a connection was dropped in the middle of an answer, which botocore does not retry."""

    def __init__(self, path: str, file: Any):
        self.path = path
        self.file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        place: int = self.file.seek(offset, whence)
        return place

    def tell(self) -> int:
        place: int = self.file.tell()
        return place

    def readinto(self, buffer: Any) -> int:
        data = self._read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readall(self) -> bytes:
        return self._read(-1)

    def _read(self, length: int) -> bytes:
        import aiohttp
        from botocore import exceptions as aws

        with named(self.path):  # here, or whoever reads would take it for a damaged file
            for failed in range(1, TRIES):
                try:
                    return bytes(self.file.read(length))
                except (aiohttp.ClientError, aws.ResponseStreamingError, aws.IncompleteReadError) as error:
                    logger.info("%s: %s; reading on", self.path, error)
                    time.sleep(WAIT_SECONDS * 2 ** (failed - 1))
            return bytes(self.file.read(length))

    def close(self) -> None:
        self.file.close()
        super().close()


@contextmanager
def upload(path: str) -> Iterator[IO[bytes]]:
    """A stream whose content becomes the object when the block ends, but not if it ends with an error.

    Beyond ``PART`` bytes it is sent in parts, which are invisible on S3 until they are complete.
    """
    check_key(path)
    file = filesystem().open(path, "wb", block_size=PART)
    try:
        yield cast(IO[bytes], _Writer(file))
        file.close()
    except BaseException:
        _discard(file)
        raise


class _Writer(io.RawIOBase):
    """Passes content on to an upload part by part. Closing it does not complete the upload."""

    def __init__(self, file: Any):
        self.file = file
        self.written = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self.written

    def write(self, data: Any) -> int:
        content = memoryview(data).cast("B")
        for start in range(0, len(content), PART):
            self.file.write(content[start : start + PART])
        self.written += len(content)
        return len(content)


def _discard(file: Any) -> None:
    """Abandons an upload. fsspec's own ``__exit__`` and ``__del__`` would complete it as it is."""
    try:
        file.discard()
    except Exception as error:
        logger.warning(
            "%s: parts of an upload that failed may be left on the server (%s); "
            "they are not visible as a file",
            file.path,
            error,
        )
    file.closed = True
