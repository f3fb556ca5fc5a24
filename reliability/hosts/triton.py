"""`python -m reliability.hosts.triton`: becomes a Triton that other hosts reach, on its usual ports."""

import os
import sys
from pathlib import Path

from local import triton
from local.errors import LocalError

if __name__ == "__main__":
    folder = Path(os.environ["RUN_DIR"])
    keys = triton.Keys.given()
    try:
        triton.become(Path(os.environ["MODEL_REPOSITORY"]), 8000, 8001, 8002, folder / sys.argv[1], keys, "0.0.0.0")
    except LocalError as error:
        sys.exit(str(error))
