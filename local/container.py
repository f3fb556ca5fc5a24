"""`python -m local.container`: becomes Triton inside of its image; with `compose` it makes the backends at build time.

gRPC and metrics listen on every address of the container, HTTP only where the healthcheck asks, unless
TRITON_HTTP_ADDRESS opens it for workers that share memory.
"""

import os
import signal
import sys
from pathlib import Path

from local import stubs, triton, wheel
from local.errors import LocalError
from local.processes import PRIVATE

MODELS = Path("/models")
BACKENDS = wheel.ROOT / "backends"
OWN_URLS = (None, "", "triton:8001", "dns:///triton:8001")  # of this container in docker-compose.yml
HTTP_PORT, GRPC_PORT, METRICS_PORT = 8000, 8001, 8002


def main(arguments: list[str]) -> int:
    """Serves every model of /models that has a model file, unless TRITON_URL names another Triton."""
    try:
        if arguments == ["compose"]:
            wheel.compose_backends(BACKENDS)
            return 0
        if os.environ.get("TRITON_URL") not in OWN_URLS:
            print("triton: TRITON_URL names another Triton; this one stays off", flush=True)
            signal.pause()
        ports = HTTP_PORT, GRPC_PORT, METRICS_PORT
        http_address = os.environ.get("TRITON_HTTP_ADDRESS") or "127.0.0.1"
        command = triton.server_command(MODELS, *ports, BACKENDS, "0.0.0.0", triton.Keys.given(), http_address)
        command += triton.connection_age(os.environ.get("TRITON_CONNECTION_SECONDS", ""))
    except LocalError as error:
        print(f"triton: {error}", file=sys.stderr)
        return 1
    triton.clear(GRPC_PORT)  # of a server that was killed, where /dev/shm is a volume
    os.umask(PRIVATE)
    stubs.look_after_this_process(triton.shared_memory(GRPC_PORT))
    os.execve(command[0], command, wheel.environment())


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
