"""Import this before redis-py: with OpenTelemetry installed it would load its SDK, for metrics nobody here asks for."""

import sys
from typing import cast

if "opentelemetry" not in sys.modules:
    modules = cast(dict[str, object], sys.modules)
    modules["opentelemetry"] = None  # an ImportError, which redis-py expects
    try:
        import redis as redis
    finally:
        del modules["opentelemetry"]
