"""`python -m gateway.worker`."""

import sys

import gateway.lean_redis  # noqa: F401  # before all that imports redis
from gateway.worker.loop import main

sys.exit(main())
