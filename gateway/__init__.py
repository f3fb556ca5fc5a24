"""YOLOv5 behind NVIDIA Triton: the web process (Starlette) and the worker process (RQ)."""

from gateway import redis_prefix  # noqa: F401  # before all that imports RQ

__version__ = "0.1.0"
