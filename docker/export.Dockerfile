# The exporter, which has torch and runs once; and, as target `tests`, the test suite on top of it.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS export
# Where PyTorch comes from: this index has its builds without CUDA, a tenth of the size.
ARG TORCH=torch==2.13.0
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN python3 -m venv --without-pip /venv \
 && pip3 --python /venv/bin/python3 install --no-cache-dir ${TORCH_INDEX:+--index-url ${TORCH_INDEX}} ${TORCH}
COPY requirements/export.txt /tmp/
RUN pip3 --python /venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /tmp/export.txt
WORKDIR /app
COPY gateway gateway
COPY export export
COPY docker/export.sh /usr/local/bin/export-model
ENV PATH=/venv/bin:$PATH PYTHONPATH=/app PYTHONDONTWRITEBYTECODE=1 PYTHONUNBUFFERED=1 YOLO_CONFIG_DIR=/tmp \
    ORT_DISABLE_TELEMETRY=1
ENTRYPOINT ["export-model"]
CMD ["ensure"]

FROM export AS tests
COPY requirements/all.txt requirements/triton.txt /tmp/
RUN pip3 --python /venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /tmp/all.txt
RUN /venv/bin/python3 -m venv --without-pip /app/.venv-triton \
 && pip3 --python /app/.venv-triton/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /tmp/triton.txt
COPY . .
RUN mkdir -p .run && chown 1000:1000 . .run
USER 1000:1000
ENTRYPOINT ["python3", "-m", "pytest", "-p", "no:cacheprovider"]
CMD []
