"""`python -m gateway.web`."""

import sys

import gateway.lean_redis  # noqa: F401  # before all that imports redis
from gateway.web.app import main

sys.exit(main())
