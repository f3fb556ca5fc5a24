"""What is said of models that did not load."""

from types import SimpleNamespace

import pytest

from gateway.triton.loading import not_loaded, reason_line, unavailable


def entry(name: str, version: str, state: str, reason: str = "") -> SimpleNamespace:
    return SimpleNamespace(name=name, version=version, state=state, reason=reason)


def test_models_that_are_served_or_were_not_asked_for_are_left_out() -> None:
    index = [
        entry("served", "1", "READY"),
        entry("older_served", "1", "READY"),
        entry("older_served", "2", "UNAVAILABLE", "bad"),
        entry("unloaded", "1", "UNAVAILABLE", "unloaded"),
        entry("never_asked", "", ""),
        entry("loading", "1", "LOADING"),
        entry("failed", "10", "UNAVAILABLE", "the newest"),
        entry("failed", "9", "UNAVAILABLE", "an older one"),
        entry("silent", "1", "UNAVAILABLE"),
    ]
    failed = {"failed": "the newest", "silent": "Triton gives no reason, its log has more"}
    assert not_loaded(index) == failed
    found = unavailable([*index, entry(".staging", "", "")])
    assert found.pop("never_asked").startswith("Triton has loaded nothing from its folder: ")
    assert found == failed


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        ("Internal: TritonModelException: bad shape\n\nAt:\n  /a/model.py(77): check\n", "bad shape"),
        ("Invalid argument:\n two  lines;\n", "Invalid argument: two lines"),
    ],
)
def test_a_reason_is_one_line(reason: str, line: str) -> None:
    assert reason_line(reason) == line


@pytest.mark.parametrize(
    ("reason", "remedy"),
    [
        ("instance group g_0 of model m has kind KIND_GPU but no GPUs are available", "DEVICE=cpu"),
        (
            "Internal: unable to create TensorRT engine: The engine plan file is generated on an incompatible device, "
            "expecting compute 9.0 got compute 8.0, please rebuild.",
            "export it again on this host",
        ),
        (
            "Internal: unable to create TensorRT engine: The engine plan file is not compatible with this version of "
            "TensorRT, expecting library version 10.13.2 got 10.3.0, please rebuild.",
            "export it again on this host",
        ),
        ("onnx runtime error 11: TensorRT EP could not deserialize engine from cache: /tmp/a_sm90.engine", "delete it"),
        (
            "the model expects 3 dimensions (…) but the model configuration specifies 3 dimensions (…)",
            "export it again",
        ),
    ],
    ids=["no GPU", "another GPU", "another TensorRT", "a cut engine", "a model of before"],
)
def test_what_to_do_is_said(reason: str, remedy: str) -> None:
    told = not_loaded([entry("m", "1", "UNAVAILABLE", reason)])["m"]
    assert told.startswith(reason) and remedy in told and "\n" not in told
