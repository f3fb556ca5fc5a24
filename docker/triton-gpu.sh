#!/bin/sh
# Becomes tritonserver with every model of /models that has a model file, but those that UNLOAD= took out of service.
# HTTP is for the healthcheck only, unless TRITON_HTTP_ADDRESS opens it for workers that share memory.
set -eu
own=${TRITON_URL:-triton:8001}
if [ "${own#dns:///}" != triton:8001 ]; then
  echo "triton: TRITON_URL names another Triton; this one stays off"
  exec sleep infinity
fi
[ -z "${TRITON_KEY_FILE:-}" ] || TRITON_KEY=$(cat "$TRITON_KEY_FILE")
[ -z "${TRITON_MEMORY_KEY_FILE:-}" ] || TRITON_MEMORY_KEY=$(cat "$TRITON_MEMORY_KEY_FILE")
models=${MODELS:-/models} volume=${ENGINE_VOLUME:-/var/cache/tensorrt} place=${ENGINES:-/tmp/tensorrt-cache}

gpus=$(nvidia-smi --query-gpu=name --format=csv,noheader 2>/dev/null | sort -u) || gpus=
if [ -z "$gpus" ]; then
  echo "triton: no GPU is visible here, and docker-compose.gpu.yml is for one; install NVIDIA's driver and Container" \
    "Toolkit on the host, or start without that file" >&2
  exit 1
fi

# An engine runs where it was built: on that GPU, with that TensorRT. ONNX Runtime names its file by the compute
# capability alone, and a foreign engine is an error to it, not a reason to build one. So each pair has a folder.
tensorrt=${TRT_VERSION:-$(cd / && find usr/lib -name 'libnvinfer.so.*.*.*' 2>/dev/null | sed 's/.*\.so\.//' | head -n 1)}
engines=$volume/$(printf '%s' "$gpus TensorRT $tensorrt" | tr -cs 'A-Za-z0-9.' '-')
free_kb=$(df -Pk "$volume" 2>/dev/null | awk 'NR == 2 { print $4 }')
if ! mkdir -p "$engines" 2>/dev/null || ! [ -w "$engines" ]; then
  problem="cannot be written by user $(id -u)"
elif [ "${free_kb:-0}" -lt 1000000 ]; then
  problem="has less than 1 GB free"
else
  problem=
fi
if [ "$problem" ]; then
  echo "triton: the volume of engines, $volume, $problem; they are built again at each start until that is mended" >&2
  engines=$place.kept-nowhere
  mkdir -p "$engines"
fi
ln -sfn "$engines" "$place"

set -- tritonserver --model-repository="$models" --model-control-mode=explicit --disable-auto-complete-config \
  --strict-readiness=false --exit-on-error=false --exit-timeout-secs=10 \
  "--http-address=${TRITON_HTTP_ADDRESS:-127.0.0.1}" --grpc-address=0.0.0.0 --metrics-address=0.0.0.0
# As local/triton.py does: what nobody uses asks for a key that nobody has.
nobody=closed=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
set -- "$@" "--grpc-restricted-protocol=trace,logging:$nobody" \
  "--http-restricted-api=shared-memory,trace,logging,model-repository:$nobody"
[ -z "${TRITON_KEY:-}" ] || set -- "$@" "--grpc-restricted-protocol=model-repository:yolo-key=$TRITON_KEY"
memory=${TRITON_MEMORY_KEY:+yolo-memory=$TRITON_MEMORY_KEY}
set -- "$@" "--grpc-restricted-protocol=shared-memory:${memory:-$nobody}"
# Where several Tritons share a name: clients resolve it again once a connection has ended.
[ -z "${TRITON_CONNECTION_SECONDS:-}" ] || set -- "$@" "--grpc-max-connection-age=${TRITON_CONNECTION_SECONDS}000"
# As local/triton.py does: spans under those of the workers, where OTEL_... asks for traces.
traces=${OTEL_EXPORTER_OTLP_TRACES_ENDPOINT:-}
[ -n "$traces" ] || [ -z "${OTEL_EXPORTER_OTLP_ENDPOINT:-}" ] || traces=${OTEL_EXPORTER_OTLP_ENDPOINT%/}/v1/traces
if [ -n "$traces" ] && [ "${OTEL_SDK_DISABLED:-}" != true ] && [ "${OTEL_TRACES_EXPORTER:-}" != none ]; then
  set -- "$@" --trace-config=mode=opentelemetry --trace-config=level=TIMESTAMPS --trace-config=rate=0 \
    "--trace-config=opentelemetry,url=$traces" --trace-config=opentelemetry,resource=service.name=triton
fi
found=
for folder in "$models"/*/; do
  name=$(basename "$folder")
  [ ! -d "$folder/config.pbtxt" ] || continue # Triton dies of it
  if [ ! -f "$folder/config.pbtxt.unloaded" ] && ls "$folder"[0-9]*/model.* >/dev/null 2>&1; then
    found=yes
    set -- "$@" "--load-model=$name"
  fi
done
[ "$found" ] || { echo "triton: no model in $models: there is no <name>/<version>/model.*; run the export service" >&2; exit 1; }
exec "$@"
