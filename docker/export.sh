#!/bin/sh
# `ensure` exports $MODEL for $DEVICE unless /models has it; anything else are options of `python -m export`, --device being $DEVICE unless given.
set -eu
for path in /models /app/gateway; do
  case $(stat -c %A "$path") in
  *r?[xt]) ;;
  *)
    echo "export: only its owner can read the checkout, and the services run as other users; say there" \
      "\`chmod -R a+rX deploy docker export gateway local model_repository\`, then \`docker compose up -d --build\`" >&2
    exit 1
    ;;
  esac
done
# As the owner of /models, so that what is written there belongs to whoever owns the checkout.
owner=$(stat -c %u:%g /models)
if [ "$(id -u)" = 0 ] && [ "$owner" != 0:0 ]; then
  exec setpriv --reuid "${owner%:*}" --regid "${owner#*:}" --clear-groups "$0" "$@"
fi
TRITON_URL=${TRITON_URL:-triton:8001}
[ "$TRITON_URL" != dns:///triton:8001 ] || export TRITON_URL=triton:8001 # any one of them; the others take it up at their next start
mkdir -p /tmp/work && cd /tmp/work  # a download lands here
[ -d /checkout/weights ] && ln -sfn /checkout/weights weights
if [ "${1:-}" = ensure ]; then
  shift
  if [ "${TRITON_URL#dns:///}" != triton:8001 ]; then
    echo "export: TRITON_URL names another Triton, which has its own models; nothing to do"
    exit 0
  fi
  if [ -f /models/"$MODEL"/config.pbtxt.unloaded ]; then
    echo "export: $MODEL was taken out of service (UNLOAD=); --use VERSION brings it back"
    exit 0
  fi
  kind=$(echo "$DEVICE" | tr '[:lower:]' '[:upper:]')
  if ls /models/"$MODEL"/[0-9]*/model.* >/dev/null 2>&1 && grep -q "KIND_$kind" /models/"$MODEL"/config.pbtxt; then
    echo "export: /models has $MODEL for $DEVICE; nothing to do"
    exit 0
  fi
  set -- --model "$MODEL" "$@"
fi
case " $* " in
# These export nothing, and take no device.
*" --list"* | *" --use"* | *" --rollback"* | *" --unload"* | *" --delete"*) exec python3 -m export --repository /models "$@" ;;
esac
exec python3 -m export --repository /models --device "$DEVICE" "$@"
