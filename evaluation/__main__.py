"""`python -m evaluation`."""

import sys

from evaluation.evaluate import main
from export.errors import print_any_name

print_any_name()
sys.exit(main())
