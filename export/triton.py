"""A running Triton, as far as an export needs it: try a candidate, take a new version up.

Triton must run with explicit model control. A candidate is loaded from memory under a name of its own, so that what is
being served is not touched before the candidate has proven itself.
"""

import contextlib
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from google.protobuf import json_format  # type: ignore[import-untyped]
from tritonclient.grpc import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from export.address import AddressError, Place, find
from export.config import Device
from export.declared import parse
from export.errors import ExportError
from gateway.triton.connection import CHANNEL_ARGUMENTS, RESTRICTED, control_headers
from gateway.triton.loading import CANDIDATE, reason_line, with_remedy

Image = npt.NDArray[np.uint8]
Rows = npt.NDArray[np.float32]

UNCONTROLLED = "explicit model load / unload is not allowed"  # Triton's answer, whether it polls or not
UNASKED = "it runs without --model-control-mode=explicit; unless it polls, start it again"
LOAD_S = {"cpu": 300.0, "gpu": 1800.0}  # on a GPU TensorRT builds an engine while the model loads
CALL_S = 60.0


class Refused(ExportError):
    """Triton does not load the model; the message has Triton's reason."""


class NotAsked(Exception):
    """Triton lets no model be loaded by request: it polls its repository, or reads it at its start alone."""


class Elsewhere(Exception):
    """Triton serves another repository than the one that was written to."""


class Triton:
    """A Triton that answers at `url` and lets models be loaded."""

    def __init__(self, place: Place, client: InferenceServerClient) -> None:
        self.url = place.url
        self._client = client
        self._control = control_headers(place.key)

    @contextlib.contextmanager
    def candidate(self, name: str, staged: Path, config_pbtxt: str, device: Device) -> Iterator["Candidate"]:
        """Serve the files in `staged` as version 1, one instance of it, until the block ends.

        Raises Refused when Triton does not load it, NotAsked when it loads nothing that it is asked to.
        """
        self._sweep()
        trial = f"{name}{_mine()}{os.getpid()}"
        config = parse(config_pbtxt)
        config.name = trial
        for group in config.instance_group:
            group.count = 1
        files = {f"file:1/{file.name}": file.read_bytes() for file in staged.iterdir()}
        try:
            self._load(trial, json_format.MessageToJson(config), files, LOAD_S[device])
            yield Candidate(self._client, trial)
        finally:
            self._unload(trial)

    def _load(self, trial: str, config: str, files: dict[str, bytes], seconds: float) -> None:
        with _controlling(f"Triton at {self.url} refuses the model: "):
            self._client.load_model(trial, headers=self._control, config=config, files=files, client_timeout=seconds)

    def _unload(self, trial: str) -> None:
        """Also after a load that took too long: Triton goes on with it, and takes the model away when it is done."""
        with contextlib.suppress(InferenceServerException):
            self._client.unload_model(trial, headers=self._control, client_timeout=CALL_S)

    def _sweep(self) -> None:
        """Take away the candidates of exports on this machine that were killed."""
        with contextlib.suppress(InferenceServerException):
            for entry in self._client.get_inference_statistics(client_timeout=CALL_S).model_stats:
                pid = entry.name.partition(_mine())[2]
                if pid.isdecimal() and not Path(f"/proc/{pid}").exists():
                    self._unload(entry.name)

    def newest_version(self, name: str) -> int:
        """The highest version that it has or had of a model; 0 where it knows none, or keeps that to itself."""
        try:
            index = self._client.get_model_repository_index(headers=self._control, client_timeout=CALL_S).models
        except InferenceServerException:
            return 0
        return max((int(entry.version) for entry in index if entry.name == name and entry.version), default=0)

    def served(self) -> dict[str, list[int]]:
        """The versions that it serves, by model, those whose folder is gone too. Raises ExportError."""
        try:
            answer = self._client.get_inference_statistics(client_timeout=CALL_S)  # the index shows what is on disk
        except InferenceServerException as error:
            raise ExportError(f"Triton at {self.url} does not say what it serves: {_line(error)}") from error
        found: dict[str, list[int]] = {}
        for entry in answer.model_stats:
            found.setdefault(entry.name, []).append(int(entry.version))
        return found

    def load_version(self, name: str, version: int, device: Device) -> None:
        """Load the version in use; requests that are under way end on the old one.

        Raises Refused when it does not load, NotAsked, and Elsewhere.
        """
        with _controlling():
            try:
                self._client.load_model(name, headers=self._control, client_timeout=LOAD_S[device])
            except InferenceServerException:
                if not self._sees(name):
                    raise Elsewhere from None
                raise
            ready = self._client.is_model_ready(name, str(version), client_timeout=CALL_S)
        if not ready:
            raise Elsewhere

    def _sees(self, name: str) -> bool:
        """Whether a folder of that name is in its repository."""
        index = self._client.get_model_repository_index(headers=self._control, client_timeout=CALL_S)
        return any(entry.name == name for entry in index.models)

    def take_up(self, name: str, version: int, device: Device) -> str:
        """As `load_version`; what came of it, in words. Raises Refused."""
        try:
            self.load_version(name, version, device)
        except NotAsked:
            return f"Triton at {self.url} was not asked: {UNASKED}"
        except Elsewhere:
            return f"Triton at {self.url} serves {name} from another repository"
        return f"Triton at {self.url} serves it"

    def unload(self, name: str) -> None:
        """Take a model away; requests that are under way end. Raises Refused, NotAsked."""
        with _controlling():
            self._client.unload_model(name, headers=self._control, client_timeout=CALL_S)


def _mine() -> str:
    """What stands between a model's name and the process in the name of a candidate of this machine."""
    return f"{CANDIDATE}{re.sub('[^A-Za-z0-9-]', '-', socket.gethostname())}-"


class Candidate:
    """A loaded model as a function: RGB uint8 (H, W, 3) → candidate rows, float32 (rows, 6)."""

    def __init__(self, client: InferenceServerClient, name: str) -> None:
        self._client = client
        self._name = name

    def __call__(self, image: Image) -> Rows:
        tensor = InferInput("images", [1, *image.shape], "UINT8")
        tensor.set_data_from_numpy(image[np.newaxis])
        try:
            answer = self._client.infer(
                self._name, [tensor], outputs=[InferRequestedOutput("detections")], client_timeout=CALL_S
            )
        except InferenceServerException as error:
            raise ExportError(f"Triton fails to run the model: {_line(error)}; nothing was published") from error
        rows: Rows = answer.as_numpy("detections")[0]
        return rows


@contextlib.contextmanager
def _controlling(said: str = "") -> Iterator[None]:
    """What Triton's model control says no with, as NotAsked or Refused; `said` begins the message of the latter."""
    try:
        yield
    except InferenceServerException as error:
        if UNCONTROLLED in _line(error):
            raise NotAsked from error
        raise Refused(f"{said}{_line(error)}") from error


@contextlib.contextmanager
def running() -> Iterator[Triton | None]:
    """The Triton at `address()`, or None when none answers there."""
    place = where()
    client = InferenceServerClient(place.url, channel_args=CHANNEL_ARGUMENTS)
    try:
        yield Triton(place, client) if _alive(client) else None
    finally:
        client.close()


def address() -> str:
    """TRITON_URL, else what `make run` started here, else Triton's usual port. Raises ExportError for no host:port."""
    return where().url


def where() -> Place:
    try:
        return find("", "", os.environ)
    except AddressError as error:
        raise ExportError(f"TRITON_URL: {error}") from error


def _alive(client: InferenceServerClient) -> bool:
    try:
        return bool(client.is_server_live(client_timeout=2.0))
    except InferenceServerException:
        return False


def _line(error: InferenceServerException) -> str:
    if RESTRICTED in str(error.message()):
        return "it asks for the key to its model control; give it with TRITON_KEY"
    return with_remedy(reason_line(error.message() or str(error)))
