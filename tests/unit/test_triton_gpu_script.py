"""The start of Triton's container for a GPU, with programs in the place of those that need one."""

import os
import subprocess
from pathlib import Path

import pytest

from export.config import ENGINES

SCRIPT = Path(__file__).parents[2] / "docker" / "triton-gpu.sh"
FREE = "Filesystem 1024-blocks Used Available Capacity Mounted on\n/dev/a 9 9 {} 1% /x"


@pytest.fixture
def run(tmp_path: Path) -> "Run":
    return Run(tmp_path)


class Run:
    """Programs named in `place`/bin say what a machine with a GPU, or without one, would."""

    def __init__(self, place: Path) -> None:
        self.place = place
        (place / "models" / "helmets" / "1").mkdir(parents=True)
        (place / "models" / "helmets" / "1" / "model.onnx").touch()
        (place / "models" / "only-config").mkdir()
        (place / "engines").mkdir()
        (place / "bin").mkdir()
        self.program("nvidia-smi", "echo 'NVIDIA H100 80GB HBM3'; echo 'NVIDIA H100 80GB HBM3'")
        self.program("tritonserver", 'printf "%s\\n" "$@"')
        self.program("df", f"echo '{FREE.format(9_000_000)}'")

    def program(self, name: str, script: str) -> None:
        path = self.place / "bin" / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def __call__(self, **settings: str) -> "subprocess.CompletedProcess[str]":
        own = {
            "PATH": f"{self.place / 'bin'}:{os.environ['PATH']}",
            "MODELS": str(self.place / "models"),
            "ENGINE_VOLUME": str(self.place / "engines"),
            "ENGINES": str(self.place / "cache"),
            "TRT_VERSION": "10.13.2.6",
        }
        return subprocess.run(
            ["sh", str(SCRIPT)], env=own | settings, capture_output=True, text=True, timeout=30, check=False
        )


def test_models_are_loaded_and_one_that_fails_does_not_end_the_server(run: Run) -> None:
    done = run(TRITON_KEY="secret")
    assert done.returncode == 0 and not done.stderr
    given = done.stdout.splitlines()
    assert [option for option in given if option.startswith("--load-model")] == ["--load-model=helmets"]
    assert {"--exit-on-error=false", "--strict-readiness=false"} <= set(given)
    assert "--grpc-restricted-protocol=model-repository:yolo-key=secret" in given


def test_a_model_out_of_service_is_not_loaded(run: Run) -> None:
    folder = run.place / "models" / "old"
    (folder / "1").mkdir(parents=True)
    (folder / "1" / "model.onnx").touch()
    assert "--load-model=old" in run().stdout
    (folder / "config.pbtxt.unloaded").touch()
    assert "--load-model=old" not in run().stdout


def test_keys_may_be_in_files(run: Run) -> None:
    (run.place / "key").write_text("secret\n")
    (run.place / "memory").write_text("shared\n")
    done = run(TRITON_KEY_FILE=str(run.place / "key"), TRITON_MEMORY_KEY_FILE=str(run.place / "memory"))
    given = done.stdout.splitlines()
    assert "--grpc-restricted-protocol=model-repository:yolo-key=secret" in given
    assert "--grpc-restricted-protocol=shared-memory:yolo-memory=shared" in given


def test_http_stays_inside_unless_workers_share_memory(run: Run) -> None:
    assert "--http-address=127.0.0.1" in run().stdout.splitlines()
    assert "--http-address=0.0.0.0" in run(TRITON_HTTP_ADDRESS="0.0.0.0").stdout.splitlines()


def test_connections_end_where_several_tritons_share_a_name(run: Run) -> None:
    age = "--grpc-max-connection-age="
    assert age + "60000" in run(TRITON_CONNECTION_SECONDS="60").stdout.splitlines()
    assert age not in run().stdout


def test_it_stays_off_where_another_triton_is_named(run: Run) -> None:
    run.program("sleep", 'echo "sleep $*"')
    done = run(TRITON_URL="triton.example.org:8001")
    assert done.stdout.splitlines()[1:] == ["sleep infinity"]
    for own in ("triton:8001", "dns:///triton:8001"):
        assert "--load-model=helmets" in run(TRITON_URL=own).stdout


def test_engines_are_kept_by_gpu_and_tensorrt(run: Run) -> None:
    assert run().returncode == 0
    kept = run.place / "engines" / "NVIDIA-H100-80GB-HBM3-TensorRT-10.13.2.6"
    assert (run.place / "cache").resolve() == kept and kept.is_dir()
    run(TRT_VERSION="10.14.0.1")
    run.program("nvidia-smi", "echo 'NVIDIA A10'; echo 'NVIDIA L4'")
    run()
    assert {path.name for path in (run.place / "engines").iterdir()} == {
        kept.name,
        "NVIDIA-H100-80GB-HBM3-TensorRT-10.14.0.1",
        "NVIDIA-A10-NVIDIA-L4-TensorRT-10.13.2.6",
    }
    assert (run.place / "cache").resolve().name == "NVIDIA-A10-NVIDIA-L4-TensorRT-10.13.2.6"


def test_the_config_names_the_place_of_the_engines() -> None:
    assert f"place=${{ENGINES:-{ENGINES}}}" in SCRIPT.read_text()


@pytest.mark.parametrize("script", ["exit 9", "echo 'No devices were found' >&2; exit 6", "true"])
def test_without_a_gpu_there_is_one_line(run: Run, script: str) -> None:
    run.program("nvidia-smi", script)
    done = run()
    assert done.returncode == 1 and not done.stdout
    assert done.stderr.startswith("triton: no GPU is visible here") and done.stderr.count("\n") == 1


def test_a_full_volume_is_told_and_the_models_are_served(run: Run) -> None:
    run.program("df", f"echo '{FREE.format(1000)}'")
    done = run()
    assert done.returncode == 0 and "--load-model=helmets" in done.stdout
    assert "has less than 1 GB free" in done.stderr and done.stderr.count("\n") == 1
    assert not (run.place / "cache").resolve().is_relative_to(run.place / "engines")


def test_a_volume_that_cannot_be_written_is_told_and_the_models_are_served(run: Run) -> None:
    (run.place / "engines").rmdir()
    (run.place / "engines").write_text("no folder")
    done = run()
    assert done.returncode == 0 and "--load-model=helmets" in done.stdout
    assert f"cannot be written by user {os.getuid()}" in done.stderr and done.stderr.count("\n") == 1


def test_without_a_model_there_is_one_line(run: Run) -> None:
    done = run(MODELS=str(run.place / "models" / "only-config"))
    assert done.returncode == 1
    assert "run the export service" in done.stderr and done.stderr.count("\n") == 1
