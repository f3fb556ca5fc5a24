"""Images for a Triton on the same host: the worker writes them into memory that Triton has mapped, nothing is sent.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md

A region is a file in /dev/shm, locked for as long as its worker lives, and holds the image of one request at a time.
Triton may still read the image of a request that was given up: such a region is used no more, and is let go once
Triton has forgotten it.
"""

import errno
import fcntl
import logging
import mmap
import os
import secrets
import threading
import time
import zlib
from collections import defaultdict
from contextlib import suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from gateway.modelspec import INPUT, memory_headers

log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # where POSIX shared memory lies on Linux
_SECONDS = 5.0  # longest wait for one answer about a region
_MOST_DROPPED = 16


def prefix(url: str) -> str:
    """How the names of the regions of one Triton begin."""
    return f"yolo_images_{zlib.crc32(url.encode()):08x}_"


class _Refused(Exception):
    """Images cannot go through shared memory at the moment; the message says why."""


class Region:
    """A file of shared memory that this process owns. Raises OSError when there is no room, or it has an owner.

    With a `size`, bytes, it is made; without, it is taken over from a process of this user that has died.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.name = path.name
        self._path = path
        how = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if size else 0)
        self._file = os.open(path, how, 0o600)
        try:
            if os.fstat(self._file).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it is another user's")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if size:
                os.posix_fallocate(self._file, 0, size)  # a file without pages would end the process at its first write
            self._memory = mmap.mmap(self._file, size)
        except (OSError, ValueError):
            os.close(self._file)
            if size:
                path.unlink(missing_ok=True)
            raise

    def tensor(self, image: npt.NDArray[np.uint8]) -> InferInput:
        """A batch of one, from an RGB uint8 (height, width, 3) image, which is copied here."""
        np.frombuffer(self._memory, np.uint8, image.nbytes).reshape(image.shape)[:] = image
        tensor = InferInput(INPUT, [1, *image.shape], "UINT8")
        tensor.set_shared_memory(self.name, image.nbytes)
        return tensor

    def remove(self) -> None:
        self._path.unlink(missing_ok=True)
        self._memory.close()
        os.close(self._file)


class SharedMemory:
    """The regions of one worker process; thread-safe. Without a `key` there are none, and images are sent as bytes.

    `url` is Triton's: regions of workers that died are known by it. Where Triton takes none, the next try is made after
    `pause_seconds`.
    """

    def __init__(
        self,
        client: InferenceServerClient,
        url: str,
        key: str | None,
        *,
        folder: Path = FOLDER,
        pause_seconds: float = 60.0,
    ) -> None:
        self._client = client
        self._headers = memory_headers(key)
        self._folder = folder
        self._pause_seconds = pause_seconds
        self._prefix = prefix(url)
        self._free: dict[int, list[Region]] = defaultdict(list)
        self._dropped: list[Region] = []
        self._making = threading.Lock()
        self._next_try = 0.0 if key else float("inf")
        self._refusal = ""

    def take(self, size: int) -> Region | None:
        """A region of `size` bytes, for one request; None where Triton takes none at the moment."""
        try:
            return self._free[size].pop()
        except IndexError:
            pass
        if time.monotonic() < self._next_try:
            return None
        with self._making:
            return self._make(size) if time.monotonic() >= self._next_try else None

    def put_back(self, region: Region, size: int) -> None:
        """Its request has been answered."""
        self._free[size].append(region)

    def drop(self, region: Region) -> None:
        """Its request was given up, or Triton does not know the region."""
        self._dropped.append(region)

    def close(self) -> None:
        """Let all go, no request being under way."""
        for regions in self._free.values():
            self._dropped += regions
        self._free.clear()
        self._let_go()
        self._let_go()

    def _make(self, size: int) -> Region | None:
        self._adopt()
        self._let_go()
        try:
            if len(self._dropped) >= _MOST_DROPPED:
                raise _Refused(f"it still holds {len(self._dropped)} regions of requests that were given up")
            region = self._registered(size)
        except _Refused as refusal:
            self._next_try = time.monotonic() + self._pause_seconds
            if str(refusal) != self._refusal:
                log.warning("images are sent to Triton as bytes, not through shared memory: %s", refusal)
            self._refusal = str(refusal)
            return None
        self._refusal = ""
        return region

    def _registered(self, size: int) -> Region:
        try:
            region = Region(self._folder / f"{self._prefix}{secrets.token_hex(8)}", size)
        except OSError as error:
            raise _Refused(f"no room for {size} bytes in {self._folder}, {error.strerror}") from error
        try:
            self._client.register_system_shared_memory(
                region.name, f"/{region.name}", size, headers=self._headers, client_timeout=_SECONDS
            )
        except InferenceServerException as error:
            self.drop(region)  # an answer may have been lost
            raise _Refused(error.message().replace(region.name, "…")) from error
        return region

    def _adopt(self) -> None:
        """Take over what workers that were killed have left."""
        for path in self._folder.glob(f"{self._prefix}*"):
            try:
                self.drop(Region(path))
            except (OSError, ValueError):
                continue  # it has an owner, or is empty and about to get one
            log.info("a worker that died has left %s, which is removed", path.name)

    def _let_go(self) -> None:
        """Remove the dropped regions that Triton does not know any more, have it forget the others."""
        if not self._dropped:
            return
        with suppress(InferenceServerException):  # it is away, or still reads one: the next time will do
            known = self._client.get_system_shared_memory_status(headers=self._headers, client_timeout=_SECONDS).regions
            for region in self._dropped.copy():
                if region.name not in known:
                    self._dropped.remove(region)
                    region.remove()
            for region in self._dropped:
                with suppress(InferenceServerException):
                    self._client.unregister_system_shared_memory(
                        region.name, headers=self._headers, client_timeout=_SECONDS
                    )
