"""The endpoints of DeepStack and CodeProject.AI, as their clients use them."""

import re
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import msgspec
import pytest
import redis

from gateway.redis_names import QUEUE_KEY
from gateway.settings import Settings
from tests.api.serving import serving, working
from tests.support.contract import Contract
from tests.support.fakes import FakeTriton
from tests.support.pictures import encoded, png_header

PICTURE = encoded(640, 480)
DETECTION = "/v1/vision/detection"


@pytest.fixture
def triton() -> FakeTriton:
    return FakeTriton([[100, 100, 200, 300, 0.9, 0], [10.4, 20.6, 50, 60, 0.45, 2], [300, 0, 400, 90, 0.3, 1]])


@pytest.fixture
def idle(settings: Settings) -> Iterator[httpx2.Client]:
    """A client of a gateway that has no worker."""
    with serving(settings) as url, httpx2.Client(base_url=url, timeout=20) as client:
        client.event_hooks["response"] = [Contract(client.get("/openapi.json").json()).check]
        yield client


@pytest.fixture
def camera(idle: httpx2.Client, settings: Settings, triton: FakeTriton) -> Iterator[httpx2.Client]:
    with working(settings, triton):
        yield idle


def test_an_image_is_answered_at_once(camera: httpx2.Client) -> None:
    body = camera.post(DETECTION, files={"image": ("a.jpg", PICTURE)}).json()
    assert (body["success"], body["code"], body["count"]) == (True, 200, 2)
    assert body["predictions"] == [
        {"label": "person", "confidence": 0.9, "x_min": 100, "y_min": 100, "x_max": 200, "y_max": 300},
        {"label": "car", "confidence": 0.45, "x_min": 10, "y_min": 21, "x_max": 50, "y_max": 60},
    ]
    assert body["message"] == "Found person, car"
    assert 0 <= body["inferenceMs"] <= body["processMs"] <= body["analysisRoundTripMs"]
    assert body["duration"] * 1000 == pytest.approx(body["analysisRoundTripMs"], abs=1)


@pytest.mark.parametrize(("given", "count"), [("0.95", 0), ("0.5", 1), ("0.4", 2), ("0.2", 3), ("", 2), ("0", 3)])
def test_min_confidence_is_kept(camera: httpx2.Client, given: str, count: int) -> None:
    body = camera.post(DETECTION, data={"min_confidence": given, "api_key": ""}, files={"image": PICTURE}).json()
    assert body["count"] == len(body["predictions"]) == count


def failure(answer: httpx2.Response) -> tuple[int, str]:
    body = answer.json()
    assert (body["success"], body["code"]) == (False, answer.status_code)
    return answer.status_code, body["error"]


@pytest.mark.parametrize(
    ("image", "data", "status", "told"),
    [
        (None, {}, 400, "send the image"),
        (b"just text", {}, 400, "not a JPEG"),
        (PICTURE[:100], {}, 400, "cannot be decoded"),
        (png_header(60_000, 60_000), {}, 413, "60000x60000"),
        (PICTURE + bytes(500_000), {}, 413, "larger than 500000 bytes"),
        (PICTURE, {"min_confidence": "1.5"}, 400, "min_confidence=1.5"),
        (PICTURE, {"min_confidence": "high"}, 400, "min_confidence=high"),
        (PICTURE, {"min_confidence": "nan"}, 400, "min_confidence=nan"),
    ],
    ids=["no image", "text", "pixels", "bomb", "bytes", "above 1", "word", "nan"],
)
def test_failures_are_told_as_those_servers_tell_them(
    camera: httpx2.Client, image: bytes | None, data: dict[str, str], status: int, told: str
) -> None:
    files = {"image": image} if image else {"other": b""}
    found, error = failure(camera.post(DETECTION, data=data, files=files))
    assert found == status and told in error


def test_several_images_are_refused(idle: httpx2.Client, connection: "redis.Redis") -> None:
    answer = idle.post(DETECTION, files=[("image", ("a.jpg", PICTURE)), ("image", ("b.jpg", PICTURE))])
    assert failure(answer) == (400, "image: give one image, not 2")
    assert connection.dbsize() == 0


class TestImpatience:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, vision_wait=0.5)

    def test_an_answer_that_does_not_come_is_told_and_its_task_is_withdrawn(
        self, idle: httpx2.Client, connection: "redis.Redis"
    ) -> None:
        answer = idle.post(DETECTION, files={"image": PICTURE})
        assert failure(answer) == (503, "the answer did not come in time: the service is busy, try again later")
        assert answer.headers["retry-after"] == "5"
        assert connection.llen(QUEUE_KEY) == 0


class TestOverload:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, max_queued_tasks=1)

    def test_a_full_queue_is_told(self, idle: httpx2.Client) -> None:
        assert idle.post("/predict", content=PICTURE).status_code == 202
        answer = idle.post(DETECTION, files={"image": PICTURE})
        assert failure(answer)[0] == 503 and int(answer.headers["retry-after"]) >= 1


class TestLeaving:
    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return msgspec.structs.replace(settings, vision_wait=60.0)

    def test_a_client_that_leaves_takes_its_task_along(self, idle: httpx2.Client, connection: "redis.Redis") -> None:
        with pytest.raises(httpx2.ReadTimeout):
            idle.post(DETECTION, files={"image": PICTURE}, timeout=0.5)
        deadline = time.monotonic() + 10
        while connection.llen(QUEUE_KEY):
            assert time.monotonic() < deadline, "the task is still there"
            time.sleep(0.05)


def test_triton_away_is_told_for_models_by_name(idle: httpx2.Client) -> None:
    assert failure(idle.post("/v1/vision/custom/helmets", files={"image": PICTURE}))[0] == 503
    assert failure(idle.post("/v1/vision/custom/list"))[0] == 503


def test_an_empty_file_is_none(camera: httpx2.Client) -> None:
    files = [("empty", ("a.jpg", b"")), ("other", ("b.jpg", PICTURE))]
    assert camera.post("/v1/vision/detection", files=files).json()["success"] is True


def test_the_first_file_counts(camera: httpx2.Client) -> None:
    files = [("snapshot", ("a.jpg", PICTURE, "image/jpeg")), ("other", ("b.txt", b"text", "text/plain"))]
    assert camera.post(DETECTION, files=files).json()["count"] == 2
    named = [("other", ("b.txt", b"text", "text/plain")), ("image", ("a.jpg", PICTURE, "image/jpeg"))]
    assert camera.post(DETECTION, files=named).json()["count"] == 2


@pytest.mark.parametrize(
    ("query", "field", "count"), [("0.95", None, 0), ("0.2", None, 3), ("0.95", "0.2", 0)], ids=str
)
def test_min_confidence_in_the_query(camera: httpx2.Client, query: str, field: str | None, count: int) -> None:
    data = {"min_confidence": field} if field else {}
    answer = camera.post(DETECTION, params={"min_confidence": query}, data=data, files={"image": PICTURE})
    assert answer.json()["count"] == count
    wrong = camera.post(DETECTION, params={"min_confidence": "2"}, files={"image": PICTURE})
    assert failure(wrong)[0] == 400 and "min_confidence=2" in failure(wrong)[1]


@pytest.mark.parametrize("before", ["/v1/status", "/v1/server/status"])
def test_status(client: httpx2.Client, before: str) -> None:
    assert client.get(f"{before}/ping").json() == {"success": True}
    version = client.get(f"{before}/version").json()
    assert version["success"] is True and version["message"] and version["version"]["major"] == 0
    update = client.get(f"{before}/updateavailable").json()
    assert (update["success"], update["updateAvailable"]) == (True, False)
    assert update["current"]["major"] == 0 and "preRelease" in update["latest"]


def test_home_answers(client: httpx2.Client) -> None:
    answer = client.get("/")
    assert (answer.status_code, answer.json()["docs"]) == (200, "/docs")


@pytest.mark.parametrize(
    "path", ["face", "face/recognize", "face/register", "face/match", "face/list", "face/delete", "scene", "enhance"]
)
def test_what_is_not_done_here(idle: httpx2.Client, path: str) -> None:
    status, error = failure(idle.post(f"/v1/vision/{path}", data={"api_key": ""}, files={"image": PICTURE}))
    assert status == 403 and error.endswith("endpoint not activated")
    assert idle.post(f"/v1/vision/{path}").status_code == 403


def test_the_table_of_the_handbook_names_tests() -> None:
    folder = Path(__file__).parents[1]
    tests = "".join((folder / name).read_text() for name in ("api/test_deepstack.py", "integration/test_cameras.py"))
    handbook = (folder.parent / "docs" / "api.md").read_text()
    named = set(re.findall(r"`(test_\w+)` \|$", handbook, re.MULTILINE))
    assert len(named) > 5 and {name for name in named if f"def {name}(" not in tests} == set()
