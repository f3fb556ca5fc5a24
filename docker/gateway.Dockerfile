# Gateway, worker and webhooks: one image, three commands. No torch.
ARG BASE=python:3.11-slim-bookworm

FROM ${BASE} AS packages
COPY requirements/serve.txt /tmp/
RUN python3 -m venv --without-pip /venv \
 && pip3 --python /venv/bin/python3 install --no-cache-dir --no-deps --require-hashes -r /tmp/serve.txt

FROM ${BASE}
COPY --from=packages /venv /venv
WORKDIR /app
COPY docker/healthcheck.sh /usr/local/bin/healthcheck
COPY gateway gateway
RUN /venv/bin/python3 -m compileall -q gateway
ENV PATH=/venv/bin:$PATH PYTHONUNBUFFERED=1 HOST=0.0.0.0 METRICS_HOST=0.0.0.0 LOG_FORMAT=json
USER 1000:1000
EXPOSE 5000 9464 9465
CMD ["python3", "-m", "gateway.web"]
