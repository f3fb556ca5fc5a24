"""`python -m gateway.webhooks`."""

import sys

from gateway.webhooks.deliverer import main

sys.exit(main())
