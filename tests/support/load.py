"""Clients that upload and wait for the result all the time."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx2

CLIENTS = 4


class Load:
    """`failed` has the answers that are no success, `wrong` those that `is_wrong`; `versions` counts who answered."""

    def __init__(
        self, url: str, picture: bytes, is_wrong: Callable[[Any], bool] = lambda body: False, **choices: str
    ) -> None:
        self.failed: list[object] = []
        self.wrong: list[object] = []
        self.versions: Counter[str] = Counter()
        self._url, self._picture, self._choices = url, picture, {"wait": "60"} | choices
        self._is_wrong = is_wrong
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(CLIENTS)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)

    def wait_for(self, version: int, more: int = 10) -> None:
        """Until that version has answered so many more, 30 s at most."""
        enough, end = self.versions[str(version)] + more, time.monotonic() + 30
        while self.versions[str(version)] < enough and time.monotonic() < end:
            time.sleep(0.01)

    def _run(self) -> None:
        with httpx2.Client(base_url=self._url, timeout=90) as client:
            while not self._stop.is_set():
                body = client.post("/predict", params=self._choices, content=self._picture).json()
                if body.get("status") != "SUCCESS":
                    self.failed.append(body)
                    continue
                self.versions[body["result"]["model"]["version"]] += 1
                if self._is_wrong(body):
                    self.wrong.append(body)
