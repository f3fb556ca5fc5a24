"""`python -m gateway.webhooks`."""

import sys

import gateway.lean_redis  # noqa: F401  # before all that imports redis
from gateway.webhooks.deliverer import main

sys.exit(main())
