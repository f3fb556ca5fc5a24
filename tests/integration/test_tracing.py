"""Triton's own spans, of the real server, in the trace of an upload."""

from contextlib import suppress
from pathlib import Path

import httpx2
import pytest

from local.triton import NO_KEYS, Keys
from tests.support.collector import Received, collecting
from tests.support.pictures import encoded
from tests.support.stack import running_stack, running_triton

UNSAMPLED, *SAMPLED = (f"0af7651916cd43dd8448eb211c80319{last}" for last in "0123456")
PATIENCE = 6  # seconds; its own exporter loses a span now and then, and is asked again


@pytest.mark.parametrize("keys", [NO_KEYS, Keys(memory="fedcba9876543210")], ids=["gRPC", "HTTP"])
def test_what_triton_does_is_under_the_step_that_waits_for_it(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: Keys
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with (
            running_triton(tiny_repository, tmp_path, keys) as triton,
            running_stack(triton, tmp_path, "tiny", workers=1) as stack,
        ):
            upload(stack.base_url, UNSAMPLED, "00")
            for trace in SAMPLED:
                upload(stack.base_url, trace, "01")
                with suppress(AssertionError):
                    collector.wait(trace, is_whole, PATIENCE)
                    break
            spans = collector.wait(trace, is_whole)
        (step,) = [span for span in spans if (span.service, span.name) == ("yolo-worker", "triton")]
        own = [span for span in spans if span.service == "triton"]
        (request,) = [span for span in own if span.name == "InferRequest"]
        assert request.parent == step.identity
        assert {span.name for span in own} == {"InferRequest", "tiny", "compute"}
        # None of what is not sampled, nor of anything else.
        assert {span.trace for span in collector.spans if span.service == "triton"} <= set(SAMPLED)


def is_whole(found: list[Received]) -> bool:
    """Each process sends its spans in parts."""
    return {(span.service, span.name) for span in found} >= {
        ("yolo-gateway", "POST /predict"),
        ("yolo-worker", "triton"),
        *(("triton", name) for name in ("InferRequest", "tiny", "compute")),
    }


def upload(url: str, trace: str, flags: str) -> None:
    files = {"image": ("a.jpg", encoded(64, 48), "image/jpeg")}
    headers = {"traceparent": f"00-{trace}-b7ad6b7169203331-{flags}"}
    answer = httpx2.post(f"{url}/predict?wait=30", files=files, headers=headers, timeout=60)
    assert answer.status_code in (200, 202), answer.text
