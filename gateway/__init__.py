"""YOLOv5 behind NVIDIA Triton: the web process (Starlette) and the worker process (RQ)."""

__version__ = "0.1.0"
