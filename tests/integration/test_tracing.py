"""Triton's own spans, of the real server, in the trace of an upload."""

from pathlib import Path

import httpx2
import pytest

from tests.support.collector import collecting
from tests.support.pictures import encoded
from tests.support.stack import running_stack, running_triton

TRACE = "0af7651916cd43dd8448eb211c80319c"


def test_what_triton_does_is_under_the_step_that_waits_for_it(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "100")
        with (
            running_triton(tiny_repository, tmp_path) as triton,
            running_stack(triton, tmp_path, "tiny", workers=1) as stack,
        ):
            for flags in ("00", "01"):
                files = {"image": ("a.jpg", encoded(64, 48), "image/jpeg")}
                headers = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-{flags}"}
                url = f"{stack.base_url}/predict?wait=30"
                answer = httpx2.post(url, files=files, headers=headers, timeout=60)
                assert answer.status_code in (200, 202), answer.text
            services = {"yolo-gateway", "yolo-worker", "triton"}
            spans = collector.wait(TRACE, lambda found: services <= {span.service for span in found})
        (step,) = [span for span in spans if (span.service, span.name) == ("yolo-worker", "triton")]
        own = [span for span in collector.spans if span.service == "triton"]
        (request,) = [span for span in own if span.name == "InferRequest"]  # none of what is not sampled
        assert request.parent == step.identity
        assert {span.trace for span in own} == {TRACE}
        assert {span.name for span in own} == {"InferRequest", "tiny", "compute"}
