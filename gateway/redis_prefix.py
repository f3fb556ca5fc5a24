"""REDIS_PREFIX, with which every name in Redis begins: several stacks can share one Redis.

Our names and RQ's are made as their modules are loaded, so it is read before the other settings are.
"""

import os
import re

ALLOWED_PREFIX = r"^[A-Za-z0-9_.-]{1,64}\Z"  # no colon, which ends it, and nothing that a pattern means
_given = os.environ.get("REDIS_PREFIX", "")
PREFIX = f"{_given}:" if re.match(ALLOWED_PREFIX, _given) else ""  # `settings.load` refuses what does not fit
os.environ["RQ_KEY_PREFIX"] = f"{PREFIX}rq"
