from collections.abc import Callable

import httpx2
import pytest
import redis

from tests.support.pictures import encoded, png_header

PICTURE = encoded(640, 480)


def problem(response: httpx2.Response) -> tuple[int, str]:
    """Status and code of a problem answer, after a look at its shape."""
    assert response.headers["content-type"] == "application/problem+json"
    body = response.json()
    assert body["status"] == response.status_code
    assert body["title"] and body["detail"] and "\n" not in body["detail"]
    return response.status_code, body["code"]


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".bmp", ".gif"])
def test_an_uploaded_file_becomes_a_task(client: httpx2.Client, suffix: str) -> None:
    answer = client.post("/predict", files={"image": ("a" + suffix, encoded(64, 48, suffix))})
    assert answer.status_code == 202
    body = answer.json()
    assert body == {"task_id": body["task_id"], "status": "PENDING", "state": "queued", "result": None}
    assert answer.headers["location"] == f"/result/{body['task_id']}"


def test_the_raw_body_becomes_a_task(client: httpx2.Client) -> None:
    assert client.post("/predict", content=PICTURE, headers={"Content-Type": "image/png"}).status_code == 202
    assert client.post("/predict", content=PICTURE).status_code == 202


def test_other_fields_beside_the_image_do_no_harm(client: httpx2.Client) -> None:
    files = {"image": ("a.png", PICTURE), "other": ("b.txt", b"text")}
    assert client.post("/predict", files=files, data={"note": "x"}).status_code == 202


def test_a_task_ends_in_detections(client: httpx2.Client, work: Callable[[], None]) -> None:
    task_id = client.post("/predict", files={"image": ("a.png", PICTURE)}).json()["task_id"]
    pending = client.get(f"/result/{task_id}").json()
    assert (pending["status"], pending["state"], pending["result"], pending["position"]) == (
        "PENDING",
        "queued",
        None,
        0,
    )
    work()
    body = client.get(f"/result/{task_id}").json()
    assert (body["task_id"], body["status"]) == (task_id, "SUCCESS")
    result = body["result"]
    assert result["model"] == {"name": "fake", "version": "1"}
    assert result["image"] == {"width": 640, "height": 480}
    box = {"x1": 100, "y1": 100, "x2": 200, "y2": 300}
    assert result["detections"] == [{"label": "person", "class_id": 0, "score": 0.9, "box": box}]
    assert list(result["timings_ms"]) == ["queue", "decode", "letterbox", "triton", "nms", "total"]
    steps = [value for name, value in result["timings_ms"].items() if name != "total"]
    assert 0 < sum(steps) <= result["timings_ms"]["total"] + 1


def test_broken_pixels_end_in_a_failure(client: httpx2.Client, work: Callable[[], None]) -> None:
    task_id = client.post("/predict", content=PICTURE[:100]).json()["task_id"]
    work()
    body = client.get(f"/result/{task_id}").json()
    assert (body["status"], body["error"]["code"]) == ("FAILURE", "invalid_image")
    assert body["result"] == body["error"]["detail"]


def test_no_body_at_all(client: httpx2.Client) -> None:
    assert problem(client.post("/predict")) == (400, "no_image")


def test_a_form_without_the_image_field(client: httpx2.Client) -> None:
    assert problem(client.post("/predict", files={"file": ("a.png", PICTURE)})) == (400, "no_image")


def test_an_empty_file(client: httpx2.Client) -> None:
    assert problem(client.post("/predict", files={"image": ("a.png", b"")})) == (400, "no_image")


def test_a_text_file_with_the_name_of_an_image(client: httpx2.Client) -> None:
    answer = client.post("/predict", files={"image": ("a.jpg", b"just text", "image/jpeg")})
    assert problem(answer) == (415, "unsupported_image")


def test_too_many_bytes(client: httpx2.Client) -> None:
    big = PICTURE + bytes(500_000)
    assert problem(client.post("/predict", files={"image": ("a.png", big)})) == (413, "image_too_large")
    assert problem(client.post("/predict", content=big)) == (413, "image_too_large")
    assert problem(client.post("/predict", content=iter([big[:50_000], big[50_000:]]))) == (413, "image_too_large")


def test_too_many_pixels(client: httpx2.Client) -> None:
    answer = client.post("/predict", files={"image": ("bomb.png", png_header(60_000, 60_000))})
    assert problem(answer) == (413, "image_too_large")


def multipart(body: bytes, content_type: str = "multipart/form-data; boundary=x") -> dict[str, object]:
    return {"content": body, "headers": {"Content-Type": content_type}}


HEAD = b'--x\r\nContent-Disposition: form-data; name="image"; filename="a.png"\r\n\r\n'


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (HEAD + PICTURE, "multipart/form-data; boundary=x"),
        (HEAD + PICTURE + b"\r\n--x", "multipart/form-data; boundary=x"),
        (HEAD[:30], "multipart/form-data; boundary=x"),
        (b"no boundary in here", "multipart/form-data; boundary=x"),
        (b"", "multipart/form-data; boundary=x"),
        (HEAD + PICTURE + b"\r\n--x--\r\n", "multipart/form-data"),
        (HEAD + PICTURE + b"\r\n--x--\r\n", "multipart/form-data; boundary=other"),
        (b"--x\r\nbroken header\r\n\r\n" + PICTURE + b"\r\n--x--\r\n", "multipart/form-data; boundary=x"),
        (b"--" + b"x" * 257 + HEAD[3:] + PICTURE, "multipart/form-data; boundary=" + "x" * 257),
        (
            HEAD.replace(b"form-data", b"form-data" + b";" * 33) + PICTURE + b"\r\n--x--\r\n",
            "multipart/form-data; boundary=x",
        ),
    ],
    ids=[
        "no end",
        "cut end",
        "cut header",
        "noise",
        "empty",
        "no boundary",
        "other boundary",
        "bad header",
        "long boundary",
        "many options",
    ],
)
def test_a_broken_multipart_body(client: httpx2.Client, body: bytes, content_type: str) -> None:
    answer = client.post("/predict", content=body, headers={"Content-Type": content_type})
    assert problem(answer) == (400, "bad_multipart")


def test_refused_uploads_leave_nothing_behind(client: httpx2.Client, connection: "redis.Redis") -> None:
    client.post("/predict", content=b"text")
    client.post("/predict", content=png_header(60_000, 60_000))
    assert connection.dbsize() == 0


def test_other_paths_and_methods(client: httpx2.Client) -> None:
    assert problem(client.get("/nothing")) == (404, "not_found")
    answer = client.get("/predict")
    assert problem(answer) == (405, "method_not_allowed")
    assert answer.headers["allow"] == "POST"
