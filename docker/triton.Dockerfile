# Triton for CPU: the tritonserver of the wheel nvidia-pytriton, with the ONNX Runtime backend of local/.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY requirements/triton.txt /tmp/
# The wheel carries stubs for every Python; the one of this Python is enough.
RUN python3 -m venv --without-pip /app/.venv-triton \
 && pip3 --python /app/.venv-triton/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /tmp/triton.txt \
 && cd /app/.venv-triton/lib/python3*/site-packages/pytriton/tritonserver/python_backend_stubs \
 && find . -mindepth 1 -maxdepth 1 ! -name "$(python3 -c 'import sys; print(*sys.version_info[:2], sep=".")')" -exec rm -r {} +
WORKDIR /app
COPY local local
COPY export/contract.py export/contract.py
COPY gateway/__init__.py gateway/redis_prefix.py gateway/secret_files.py gateway/
RUN .venv-triton/bin/python3 -m local.container compose

FROM ${BASE}
COPY --from=packages /app /app
COPY docker/healthcheck.sh /usr/local/bin/healthcheck
WORKDIR /app
ENV PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 ORT_DISABLE_TELEMETRY=1
USER 1000:1000
EXPOSE 8001 8002
CMD [".venv-triton/bin/python3", "-m", "local.container"]
