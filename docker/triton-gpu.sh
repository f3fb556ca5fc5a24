#!/bin/sh
# Becomes tritonserver with every model of /models that has a model file. HTTP is for the healthcheck only.
set -eu
set -- tritonserver --model-repository=/models --model-control-mode=explicit --disable-auto-complete-config \
  --strict-readiness=false --exit-on-error=false --exit-timeout-secs=10 \
  --http-address=127.0.0.1 --grpc-address=0.0.0.0 --metrics-address=0.0.0.0
# As local/triton.py does: what nobody uses asks for a key that nobody has.
nobody=closed=$(od -An -N16 -tx1 /dev/urandom | tr -d ' \n')
set -- "$@" "--grpc-restricted-protocol=trace,logging:$nobody" \
  "--http-restricted-api=shared-memory,trace,logging,model-repository:$nobody"
[ -z "${TRITON_KEY:-}" ] || set -- "$@" "--grpc-restricted-protocol=model-repository:yolo-key=$TRITON_KEY"
memory=${TRITON_MEMORY_KEY:+yolo-memory=$TRITON_MEMORY_KEY}
set -- "$@" "--grpc-restricted-protocol=shared-memory:${memory:-$nobody}"
found=
for folder in /models/*/; do
  name=$(basename "$folder")
  if ls "$folder"[0-9]*/model.* >/dev/null 2>&1; then
    found=yes
    set -- "$@" "--load-model=$name"
  fi
done
[ "$found" ] || { echo "no model in /models: there is no <name>/<version>/model.*; run the export service" >&2; exit 1; }
exec "$@"
