"""YOLOv5 behind NVIDIA Triton: the web process (Starlette) and the worker process (RQ)."""
