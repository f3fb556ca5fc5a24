#!/bin/sh
# Becomes this stack's Redis, or stays idle where REDIS_URL names another one. `check` is the health of either.
set -eu
case ${REDIS_URL:-} in
"" | *://redis:6379* | *@redis:6379*) ;;
*://localhost* | *://127.* | *@localhost* | *@127.*)
  echo "redis: REDIS_URL names this machine, which is each container by itself; give an address that all of them reach" >&2
  exit 1
  ;;
*)
  [ "${1:-}" != check ] || exit 0
  echo "redis: REDIS_URL names another Redis; this one stays off"
  exec sleep infinity
  ;;
esac
[ "${1:-}" != check ] || exec redis-cli ping
if command -v docker-entrypoint.sh >/dev/null; then exec docker-entrypoint.sh "$@"; fi  # of the official images
exec redis-server --protected-mode no --dir /data "$@"
