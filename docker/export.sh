#!/bin/sh
# `ensure` exports $MODEL for $DEVICE unless /models has it; anything else are options of `python -m export`.
set -eu
# As the owner of /models, so that what is written there belongs to whoever owns the checkout.
owner=$(stat -c %u:%g /models)
if [ "$(id -u)" = 0 ] && [ "$owner" != 0:0 ]; then
  exec setpriv --reuid "${owner%:*}" --regid "${owner#*:}" --clear-groups "$0" "$@"
fi
mkdir -p /tmp/work && cd /tmp/work  # a download lands here
[ -d /checkout/weights ] && ln -sfn /checkout/weights weights
if [ "${1:-}" = ensure ]; then
  shift
  kind=$(echo "$DEVICE" | tr '[:lower:]' '[:upper:]')
  if ls /models/"$MODEL"/[0-9]*/model.* >/dev/null 2>&1 && grep -q "KIND_$kind" /models/"$MODEL"/config.pbtxt; then
    echo "export: /models has $MODEL for $DEVICE; nothing to do"
    exit 0
  fi
  set -- --model "$MODEL" --device "$DEVICE" "$@"
fi
exec python3 -m export --repository /models "$@"
