"""How a client asks each kind of target for the detections of an image."""

import http.client
import time
from pathlib import Path
from typing import Any, Literal, Protocol

import msgspec
import numpy as np

Kind = Literal["raw", "multipart", "celery", "triton", "onnxruntime"]
Rows = list[list[float | str]]

POLL_SECONDS = 0.01
TIMEOUT_SECONDS = 90
IDLE_SECONDS = 1.5  # LitServe and this service close a connection that was idle for 5
_BOUNDARY = "benchmark-7MA4YWxkTrZu0gW"


class Target(msgspec.Struct):
    """What to send where. `images` are encoded images, or `.npy` tensors for the kinds `triton` and `onnxruntime`.

    `address` is host:port; `path` of the URL, the name of the model for `triton`, the model file for `onnxruntime`.
    """

    kind: Kind
    images: list[str]
    address: str = ""
    path: str = ""


class Sender(Protocol):
    """One client with one connection. `send` gives the detections and the receipt of the image of that index.

    It raises OSError, ValueError or RuntimeError when there is no answer, or none that says success.
    """

    def send(self, index: int) -> tuple[Rows, dict[str, float]]: ...


def signature(rows: Rows) -> Rows:
    """Equal for equal answers: rounded and ordered."""
    rounded = [[round(value, 2) if isinstance(value, float) else value for value in row] for row in rows]
    return sorted(rounded, key=str)


class HTTPSender:
    """The encoded image in one POST, the detections in its answer."""

    def __init__(self, target: Target) -> None:
        self._connection = http.client.HTTPConnection(target.address, timeout=TIMEOUT_SECONDS)
        self._used_at = 0.0
        self._path = target.path
        images = [Path(image).read_bytes() for image in target.images]
        raw = target.kind == "raw"
        self._bodies = images if raw else [multipart(image) for image in images]
        self._headers = {"Content-Type": "image/jpeg" if raw else f"multipart/form-data; boundary={_BOUNDARY}"}

    def send(self, index: int) -> tuple[Rows, dict[str, float]]:
        body = self._ask("POST", self._path, self._bodies[index], self._headers)
        if body.get("status") != "SUCCESS":
            raise ValueError(f"no success: {body}")
        return rows_of(body["result"]["detections"]), body["result"].get("timings_ms", {})

    def _ask(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> dict[str, Any]:
        if time.monotonic() > self._used_at + IDLE_SECONDS:
            self._connection.close()  # before the server does; the next request opens it again
        self._used_at = time.monotonic()
        try:
            self._connection.request(method, path, body, headers)
            answer = self._connection.getresponse()
            data = answer.read()
        except http.client.HTTPException as error:
            self._connection.close()
            raise ValueError(f"{type(error).__name__}: {error}") from error
        except OSError:
            self._connection.close()
            raise
        if answer.status >= 400:
            raise ValueError(f"HTTP {answer.status}: {data[:200]!r}")
        parsed: dict[str, Any] = msgspec.json.decode(data)
        return parsed


class PollingSender(HTTPSender):
    """The image in one POST; then the result is asked for until it is there."""

    def send(self, index: int) -> tuple[Rows, dict[str, float]]:
        task_id = self._ask("POST", self._path, self._bodies[index], self._headers)["task_id"]
        give_up_at = time.monotonic() + TIMEOUT_SECONDS
        while time.monotonic() < give_up_at:
            time.sleep(POLL_SECONDS)
            body = self._ask("GET", f"/result/{task_id}", None, {})
            if body["status"] == "SUCCESS":
                return rows_of(body["result"]), {}
            if body["status"] == "FAILURE":
                break
        raise ValueError(f"no success: {body}")


class TritonSender:
    """A ready tensor over gRPC; no image is decoded, no box is chosen."""

    def __init__(self, target: Target) -> None:
        from tritonclient.grpc import InferenceServerClient, InferRequestedOutput

        from gateway.triton.spec import OUTPUT

        self._client = InferenceServerClient(target.address)
        self._model = target.path
        self._tensors = [np.load(image) for image in target.images]
        self._outputs = [InferRequestedOutput(OUTPUT)]

    def send(self, index: int) -> tuple[Rows, dict[str, float]]:
        from tritonclient.utils import InferenceServerException

        from gateway.triton.spec import OUTPUT, image_tensor

        inputs = [image_tensor(self._tensors[index])]
        try:
            answer = self._client.infer(self._model, inputs, outputs=self._outputs)
        except InferenceServerException as error:
            raise RuntimeError(str(error)) from error
        return best(answer.as_numpy(OUTPUT)[0]), {}


class SessionSender:
    """A ready tensor into an ONNX Runtime session of this process, one session and one thread a client."""

    def __init__(self, target: Target) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(target.path, options, providers=["CPUExecutionProvider"])
        self._tensors = [np.load(image)[None] for image in target.images]

    def send(self, index: int) -> tuple[Rows, dict[str, float]]:
        (rows,) = self._session.run(["detections"], {"images": self._tensors[index]})
        return best(rows[0]), {}


def sender(target: Target) -> Sender:
    kinds: dict[Kind, type[HTTPSender] | type[TritonSender] | type[SessionSender]] = {
        "raw": HTTPSender,
        "multipart": HTTPSender,
        "celery": PollingSender,
        "triton": TritonSender,
        "onnxruntime": SessionSender,
    }
    return kinds[target.kind](target)


def best(rows: Any) -> Rows:
    """The candidates above 0.25, as the model gives them."""
    kept: Rows = rows[rows[:, 4] > 0.25].astype(float).tolist()
    return kept


def rows_of(detections: list[dict[str, Any]]) -> Rows:
    """x1, y1, x2, y2 (or x, y, width, height), score, and class id or label."""
    rows: Rows = []
    for found in detections:
        box = found["box"]
        sides = list(box.values()) if isinstance(box, dict) else list(box)
        rows.append([*sides, found["score"], found["class_id"] if "class_id" in found else found["label"]])
    return rows


def multipart(image: bytes) -> bytes:
    head = (
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="image.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n"
    )
    return head.encode() + image + f"\r\n--{_BOUNDARY}--\r\n".encode()
