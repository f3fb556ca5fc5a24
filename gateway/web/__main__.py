"""`python -m gateway.web`."""

import sys

from gateway.web.app import main

sys.exit(main())
