"""`python -m gateway.healthcheck gateway|worker`: exit status 0 when the process in this container is well.

The gateway is when it is ready, a worker when Redis has taken its heartbeat of late.
"""

import http.client
import sys
import time

from gateway.settings import load

_ASK_SECONDS = 4.0
_FRESH_SECONDS = 15.0
_HEARTBEAT = "yolo_worker_heartbeat_timestamp_seconds "


def main(arguments: list[str]) -> int:
    settings = load()
    try:
        if arguments == ["gateway"]:
            problem = gateway(settings.port)
        elif arguments == ["worker"]:
            problem = worker(settings.worker_metrics_port)
        else:
            problem = "say gateway or worker"
    except OSError as error:
        problem = f"does not answer: {error}"
    if problem:
        print(problem, file=sys.stderr)
    return int(bool(problem))


def gateway(port: int) -> str:
    """What is wrong, or nothing."""
    status, body = _get(port, "/readyz")
    return "" if status == 200 else f"{status} {body}"


def worker(port: int) -> str:
    """What is wrong, or nothing."""
    beats = [line for line in _get(port, "/metrics")[1].splitlines() if line.startswith(_HEARTBEAT)]
    age = time.time() - float(beats[0].removeprefix(_HEARTBEAT)) if beats else float("inf")
    return "" if age < _FRESH_SECONDS else f"the last heartbeat is {age:.0f} s old"


def _get(port: int, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=_ASK_SECONDS)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
