"""Stands in for docker on a host with a GPU: Triton of the wheel on the CPU, an engine that is the ONNX file."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from local import triton
from local.triton import Keys

USUAL_PORTS = ("8000", "8001", "8002")


def main(arguments: list[str]) -> int:
    if arguments[0] == "build":
        return 0
    if arguments[0] == "stop":
        os.kill(int(pid_file(arguments[1]).read_text()), signal.SIGTERM)
        return 0
    options = {arguments[i]: arguments[i + 1] for i in range(len(arguments) - 1) if arguments[i].startswith("--")}
    given = [arguments[i + 1].split(":") for i, word in enumerate(arguments) if word == "--volume"]
    volumes = {inside: outside for outside, inside, *_ in given}
    if "trtexec" in " ".join(arguments):
        folder = Path(volumes["/engine"])
        if any(word.startswith("--loadEngine") for word in arguments):
            assert (folder / "model.plan").is_file() and "--shapes=images:16x640x640x3" in arguments
            print("[I] Throughput: 2.5 qps")
        else:
            shutil.copy(folder / "model.onnx", folder / "model.plan")
        return 0
    if "sh" in arguments:
        print("Triton=2.51.0 TensorRT=10.13.2.6")
        return 0
    published = {word.split(":")[2]: int(word.split(":")[1]) for word in arguments if word.startswith("127.0.0.1:")}
    given_key = next(word for word in arguments if word.startswith("TRITON_MEMORY_KEY=")).partition("=")[2]
    pid_file(options["--name"]).write_text(str(os.getpid()))
    return serve(Keys(memory=given_key), Path(volumes["/models"]), *(published[port] for port in USUAL_PORTS))


def serve(keys: Keys, models: Path, http_port: int, grpc_port: int, metrics_port: int) -> int:
    with tempfile.TemporaryDirectory() as place:
        repository = Path(place) / "models"
        shutil.copytree(models, repository)
        for config in repository.glob("*/config.pbtxt"):
            text = config.read_text().replace("KIND_GPU", "KIND_CPU").replace("count: 2", "count: 1")
            config.write_text(text.replace('platform: "tensorrt_plan"', 'backend: "onnxruntime"'))
        for engine in repository.glob("*/*/model.plan"):
            engine.rename(engine.with_name("model.onnx"))
        server = triton.start(repository, http_port, grpc_port, metrics_port, Path(place) / "triton.log", keys)
        signal.signal(signal.SIGTERM, lambda *_: server.terminate())
        status = server.wait()
        triton.clear(grpc_port)
        subprocess.run(["tail", "-n", "3", str(Path(place) / "triton.log")], check=False)
        return status


def pid_file(name: str) -> Path:
    return Path(tempfile.gettempdir()) / f"{name}.pid"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
