"""Images for a Triton on the same host: the worker writes them into memory that Triton has mapped, nothing is sent.

https://github.com/triton-inference-server/server/blob/main/docs/protocol/extension_shared_memory.md

A region is a file in /dev/shm, locked for as long as its worker lives, and holds the image of one request at a time.
Triton may still read the image of a request that was given up: such a region is never used again.
"""

import errno
import fcntl
import logging
import math
import mmap
import os
import secrets
import threading
import time
import zlib
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tritonclient.grpc import InferenceServerClient, InferInput
from tritonclient.utils import InferenceServerException

from gateway.triton.connection import OUTAGE, memory_headers
from gateway.triton.spec import INPUT

log = logging.getLogger(__name__)

FOLDER = Path("/dev/shm")  # where Linux keeps POSIX shared memory
_SPARE_BYTES = 16 << 20  # left there for Triton's own
_SECONDS = 5.0  # longest wait for one answer about a region
_ANY = "yolo_images_"


def prefix(url: str) -> str:
    """How the names of the regions of one Triton begin."""
    return f"{_ANY}{zlib.crc32(url.encode()):08x}_"


class _Refused(Exception):
    """Images cannot go through shared memory at the moment; the message says why."""


class Region:
    """A file of shared memory that this process owns. Raises OSError when there is no room, or it has an owner.

    With a `size`, bytes, it is made; without, it is taken over from a process of this user that has died.
    """

    def __init__(self, path: Path, size: int = 0) -> None:
        self.name = path.name
        self._path = path.with_name(f".{path.name}") if size else path  # nobody is to find it before it is locked
        how = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | (os.O_CREAT | os.O_EXCL if size else 0)
        self._file = os.open(self._path, how, 0o600)
        try:
            if os.fstat(self._file).st_uid != os.geteuid():
                raise PermissionError(errno.EPERM, "it is another user's")
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if size:
                os.posix_fallocate(self._file, 0, size)  # a file without pages would end the process at its first write
                self._path = self._path.rename(path)
            self._memory = mmap.mmap(self._file, size)
            self.size = len(self._memory)
            self.is_asked_for = False  # Triton may read it at any time, or does not know it
            self.requests: dict[tuple[str, str, tuple[int, ...]], tuple[bytes, bytes]] = {}  # of `http_inference`
        except (OSError, ValueError):
            os.close(self._file)
            if size:
                self._path.unlink(missing_ok=True)
            raise

    def view(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """An image of this shape, in this memory. Whoever keeps it keeps the memory, even of one that was removed."""
        return np.frombuffer(self._memory, np.uint8, math.prod(shape)).reshape(shape)

    def tensor(self, shape: tuple[int, ...]) -> InferInput:
        """A batch of one, the image of this shape that was written here. From now on it is asked for."""
        self.is_asked_for = True
        tensor = InferInput(INPUT, [1, *shape], "UINT8")
        tensor.set_shared_memory(self.name, math.prod(shape))
        return tensor

    def remove(self) -> None:
        """Let it go; a Triton that has mapped it keeps it until it is asked to forget it."""
        self._path.unlink(missing_ok=True)
        os.close(self._file)
        with suppress(BufferError):  # there is a view of it: the memory goes with that
            self._memory.close()


class Canvas:
    """Where the image of one request is made: in a region that Triton reads, or in memory that is sent as bytes."""

    def __init__(self, region: Region | None = None) -> None:
        self.region = region

    def __call__(self, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
        """RGB uint8 of this shape, with whatever was there."""
        if self.region is not None and math.prod(shape) > self.region.size:
            self.region = None
        return np.empty(shape, np.uint8) if self.region is None else self.region.view(shape)


class SharedMemory:
    """The regions of one worker process; thread-safe. Without a `key` there are none, and images are sent as bytes.

    `url` is Triton's: its regions of workers that died are known by it. Where Triton takes none, or still reads
    `most_dropped` that were given up, the next try is made after `pause_seconds`.
    """

    def __init__(
        self,
        client: InferenceServerClient,
        url: str,
        key: str | None,
        *,
        folder: Path = FOLDER,
        pause_seconds: float = 60.0,
        most_dropped: int = 32,
    ) -> None:
        self._client = client
        self._headers = memory_headers(key)
        self._folder = folder
        self._pause_seconds = pause_seconds
        self._most_dropped = most_dropped
        self._prefix = prefix(url)
        self._free: dict[int, list[Region]] = defaultdict(list)
        self._dropped: list[str] = []  # names that Triton may still know
        self._making = threading.Lock()
        self._next_try = 0.0 if key else float("inf")
        self._refusal = ""

    @contextmanager
    def lent(self, size: int) -> Iterator[Region | None]:
        """A region of `size` bytes for one request; None where there is none at the moment.

        One that is still asked for is dropped.
        """
        try:
            region: Region | None = self._free[size].pop()
        except IndexError:
            region = self._made(size)
        try:
            yield region
        finally:
            if region is not None and region.is_asked_for:
                self._drop(region)
            elif region is not None:
                self._free[size].append(region)

    def close(self) -> None:
        """Let all go, no request being under way."""
        for region in [region for regions in self._free.values() for region in regions]:
            self._drop(region)
        self._free.clear()
        try:
            self._forget_dropped()
        except _Refused as refusal:
            log.debug("regions are left to Triton: %s", refusal)

    def _made(self, size: int) -> Region | None:
        if time.monotonic() < self._next_try or not self._making.acquire(blocking=False):
            return None  # nobody waits for a Triton that does not answer one of the others
        try:
            self._adopt()
            self._forget_dropped()
            region = self._registered(size)
        except _Refused as refusal:
            self._next_try = time.monotonic() + self._pause_seconds
            if str(refusal) != self._refusal:
                log.warning("images are sent to Triton as bytes, not through shared memory: %s", refusal)
            self._refusal = str(refusal)
            return None
        finally:
            self._making.release()
        self._refusal = ""
        return region

    def _registered(self, size: int) -> Region:
        room = os.statvfs(self._folder)
        if room.f_bavail * room.f_frsize < size + _SPARE_BYTES:
            raise _Refused(f"less than {(size + _SPARE_BYTES) / 1e6:.0f} MB are free in {self._folder}")
        try:
            region = Region(self._folder / f"{self._prefix}{secrets.token_hex(8)}", size)
        except OSError as error:
            raise _Refused(f"no region in {self._folder}: {error.strerror}") from error
        try:
            self._client.register_system_shared_memory(
                region.name, f"/{region.name}", size, headers=self._headers, client_timeout=_SECONDS
            )
        except InferenceServerException as error:
            if error.status() in OUTAGE:
                self._dropped.append(region.name)  # an answer may have been lost
            region.remove()
            raise _Refused(error.message().replace(region.name, "…")) from error
        return region

    def _drop(self, region: Region) -> None:
        region.remove()
        self._dropped.append(region.name)

    def _adopt(self) -> None:
        """Remove what processes that were killed have left, of whichever Triton."""
        for path in self._folder.glob(f"{_ANY}*"):
            try:
                Region(path).remove()
            except (OSError, ValueError):
                continue  # it has an owner
            log.info("%s, which a worker that died has left, is removed", path.name)
            if path.name.startswith(self._prefix):
                self._dropped.append(path.name)

    def _forget_dropped(self) -> None:
        """Have Triton forget the dropped regions. It does not while it reads one: then the next time will do."""
        for name in self._dropped.copy():
            try:
                self._client.unregister_system_shared_memory(name, headers=self._headers, client_timeout=_SECONDS)
            except InferenceServerException as error:
                if error.status() in OUTAGE:
                    raise _Refused(error.message()) from error
            else:
                self._dropped.remove(name)
        if len(self._dropped) >= self._most_dropped:
            raise _Refused(f"it still reads {len(self._dropped)} images of requests that were given up")
