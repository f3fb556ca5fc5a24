# Triton for GPU: NVIDIA's image, which is 15 to 20 GB. An engine must be built by the TensorRT that serves it:
# `make export-model FORMAT=tensorrt` uses the same image (export/graph/engine.py).
ARG IMAGE=nvcr.io/nvidia/tritonserver:25.08-py3
FROM ${IMAGE}
COPY docker/triton-gpu.sh /usr/local/bin/serve
COPY docker/healthcheck.sh /usr/local/bin/healthcheck
# A new volume takes its owner from here.
RUN install -d -o 1000 -g 1000 /var/cache/tensorrt
USER 1000:1000
EXPOSE 8001 8002
# NVIDIA's entry point stays: it checks the driver, and lets an older one of a data centre's GPU serve a newer CUDA.
CMD ["serve"]
