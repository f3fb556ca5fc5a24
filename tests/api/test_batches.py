"""Several images in one request."""

import threading
from collections.abc import Callable

import httpx2

from gateway.settings import Settings
from tests.support.pictures import encoded, png_header

PICTURE = encoded(64, 48)


def upload(client: httpx2.Client, *images: bytes, **params: str) -> httpx2.Response:
    files = [("image", (f"{index}.png", image)) for index, image in enumerate(images)]
    return client.post("/predict", files=files, params=params)


def test_several_images_become_a_batch(client: httpx2.Client, work: Callable[[], None]) -> None:
    answer = upload(client, PICTURE, PICTURE, PICTURE)
    assert answer.status_code == 202
    accepted = answer.json()
    assert answer.headers["location"] == f"/batches/{accepted['batch_id']}"
    assert (accepted["total"], accepted["pending"]) == (3, 3)
    work()
    batch = client.get(answer.headers["location"]).json()
    assert (batch["pending"], batch["succeeded"], batch["failed"]) == (0, 3, 0)
    assert [task["filename"] for task in batch["tasks"]] == ["0.png", "1.png", "2.png"]
    for task in batch["tasks"]:
        assert client.get(f"/result/{task['task_id']}").json()["batch_id"] == batch["batch_id"]


def test_one_bad_file_harms_no_other(client: httpx2.Client, work: Callable[[], None]) -> None:
    answer = upload(client, PICTURE, b"just text", PICTURE[:90], png_header(60_000, 9), bytes(600_000), PICTURE)
    work()
    batch = client.get(answer.headers["location"]).json()
    assert (batch["total"], batch["succeeded"], batch["failed"]) == (6, 2, 4)
    codes = [task.get("error", {}).get("code") for task in batch["tasks"]]
    assert codes == [None, "unsupported_image", None, "image_too_large", "image_too_large", None]
    assert client.get(f"/result/{batch['tasks'][2]['task_id']}").json()["error"]["code"] == "invalid_image"


def test_a_batch_of_bad_files_is_refused(client: httpx2.Client) -> None:
    answer = upload(client, b"text", b"more text")
    assert (answer.status_code, answer.json()["code"]) == (415, "unsupported_image")


def test_too_many_images_are_refused(client: httpx2.Client, settings: Settings) -> None:
    answer = upload(client, *[PICTURE] * (settings.max_images + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "too_many_images")


def test_a_batch_can_be_waited_for(client: httpx2.Client, work: Callable[[], None]) -> None:
    timer = threading.Timer(0.3, work)
    timer.start()
    answer = upload(client, PICTURE, PICTURE, wait="20")
    timer.join()
    assert (answer.status_code, answer.json()["succeeded"]) == (200, 2)
    assert upload(client, PICTURE, PICTURE, wait="0.2").status_code == 202


def test_an_unknown_batch(client: httpx2.Client) -> None:
    answer = client.get(f"/batches/{'0' * 32}")
    assert (answer.status_code, answer.json()["code"]) == (404, "task_not_found")
