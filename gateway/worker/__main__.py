"""`python -m gateway.worker`."""

import sys

from gateway.worker.loop import main

sys.exit(main())
