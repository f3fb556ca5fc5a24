"""One file of a batch: sent until there is an outcome, however busy the service is."""

import hashlib
import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from yolo_gateway.cli.batch.journal import Failure, Header, Result, Size
from yolo_gateway.cli.batch.outputs import picture_name, write_bytes
from yolo_gateway.cli.batch.run import Outcome
from yolo_gateway.cli.pace import PASSING, Pace
from yolo_gateway.cli.service import Refused, Service
from yolo_gateway.cli.text import Unusable, reason_of, shown

_TRIES = 3
_FINAL_FAILURES = frozenset({"invalid_image"})
_OF_THE_MODEL = frozenset({"model_mismatch"})  # no other image would do better


class Sender:
    """Sends with what the run was started with; used by several threads."""

    def __init__(
        self, service: Service, header: Header, choices: Mapping[str, Any], pace: Pace, pictures: Path | None
    ) -> None:
        self._service, self._header, self._choices = service, header, choices
        self._pace, self._pictures = pace, pictures
        self._asked = {**header.options, "model": header.model, "version": header.version}

    def send(self, data: bytes, name: str, attempts: int) -> Outcome:
        """What came of a file; `attempts` of it were made by earlier runs. Raises Unusable."""
        for attempt in range(attempts + 1, attempts + 1 + _TRIES):
            outcome = self._try(data, name, attempt)
            if isinstance(outcome, Result) or not outcome.passing:
                break
        return outcome

    def _try(self, data: bytes, name: str, attempt: int) -> Outcome:
        key = idempotency_key(data, self._asked, attempt)
        try:
            task = self._pace.ask(lambda: self._service.predict(data, self._choices, key))
            while task["status"] == "PENDING":
                task = self._pace.ask(partial(self._service.wait, task["task_id"]))
            if task["status"] == "SUCCESS" and self._pictures:
                picture = self._pace.ask(lambda: self._service.picture(task["task_id"]))
                self._save(self._pictures / picture_name(name), picture)
        except Refused as error:
            return Failure(error.code, error.detail, error.code in PASSING, attempt)
        return self._outcome(task, attempt)

    def _outcome(self, task: dict[str, Any], attempt: int) -> Outcome:
        if task["status"] == "FAILURE":
            problem = task["error"]
            if problem["code"] in _OF_THE_MODEL:
                raise Unusable(shown(problem["detail"]))
            return Failure(problem["code"], problem["detail"], problem["code"] not in _FINAL_FAILURES, attempt)
        result, header = task["result"], self._header
        model = result["model"]
        if (model["name"], model["version"]) != (header.model, header.version):
            raise Unusable(
                f"{shown(model['name'])} version {model['version']} answers now, and the run began with "
                f"{shown(header.model)} version {header.version}; --model and --model-version ask for that one"
            )
        rows = [self._row(found) for found in result["detections"]]
        return Result(Size(result["image"]["width"], result["image"]["height"]), rows, result["warnings"])

    def _row(self, found: dict[str, Any]) -> list[float]:
        class_id, box, labels = found["class_id"], found["box"], self._header.labels
        if not (0 <= class_id < len(labels) and labels[class_id] == found["label"]):
            raise Unusable(f"the classes of the model have changed: {class_id} is {shown(found['label'])} now")
        return [class_id, found["score"], box["x1"], box["y1"], box["x2"], box["y2"]]

    def _save(self, path: Path, picture: bytes) -> None:
        try:
            write_bytes(path, picture)
        except OSError as error:
            raise Unusable(f"{shown(str(path))}: {reason_of(error)}") from error


def idempotency_key(data: bytes, choices: Mapping[str, Any], attempt: int) -> str:
    """The same for the same content with the same choices: what was sent already is not computed again."""
    asked = json.dumps([sorted(choices.items()), attempt])
    return hashlib.sha256(hashlib.sha256(data).digest() + asked.encode()).hexdigest()
