"""What Triton's machine has."""

from __future__ import annotations

import re
import socket
import urllib.request

from doctor.model import Host
from export.address import Place
from export.config import cores

GPU_METRIC = re.compile(r'^nv_gpu_utilization\{gpu_uuid="([^"]+)"', re.MULTILINE)


def look_at(place: Place) -> tuple[Host, bool]:
    """The machine, and whether its metrics answer."""
    try:
        # No proxy: Triton's metrics are next door, and a proxy's error page is not Triton's.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(place.metrics_url, timeout=5) as answer:
            metrics = answer.read().decode(errors="replace")
    except (OSError, ValueError):
        metrics = ""
    answered = "nv_inference" in metrics
    gpus = len(set(GPU_METRIC.findall(metrics))) if answered else None
    return Host(cores=cores() if is_here(place.host) else None, gpus=gpus), answered


def is_here(host: str) -> bool:
    """Whether the name is one of this machine: only its own addresses can be listened on."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.bind(address)
    except OSError:
        return False
    return True
