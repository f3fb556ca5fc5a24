#!/bin/bash
# healthcheck gateway|worker|triton|webhooks: exit status 0 when the process in this container is well. No Python: it runs often.
set -eu -o pipefail

get() { # get PORT PATH
  exec 3<>"/dev/tcp/127.0.0.1/$1"
  printf 'GET %s HTTP/1.0\r\nHost: %s\r\n\r\n' "$2" "$host" >&3
  cat <&3
}

host=${TRUSTED_HOSTS:-localhost}
host=${host%%[ ,]*}
host=${host/#\*/healthcheck}
case $1 in
gateway) [[ $(get 5000 /readyz) == HTTP/1.?" 200"* ]] ;;
triton) [[ ${TRITON_URL:-triton:8001} != ?(dns:///)triton:8001 ]] || [[ $(get 8000 /v2/health/ready) == HTTP/1.?" 200"* ]] ;;
worker) # Redis has taken its heartbeat of late
  beat=$(get 9465 /metrics | sed -n 's/^yolo_worker_heartbeat_timestamp_seconds //p')
  awk -v beat="$beat" -v now="$(date +%s)" -v ttl="${WORKER_TTL:-15}" 'BEGIN { exit !(now - beat < ttl + 5) }' ;;
webhooks) # it has looked at its queue of late
  [ -n "$(find /tmp/yolo-webhooks-alive -newermt '-30 seconds')" ] ;;
esac
