"""Requests that schemathesis makes from /openapi.json: every answer is as documented, and none is a 5xx.

`make contract` sends several thousand, other ones each time; SCHEMATHESIS_EXAMPLES is how many of each kind are made.
Without it a few hundred are made, always the same.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import tiny
from tests.support.stack import ROOT, Stack, running_stack, running_triton

pytestmark = pytest.mark.long

EXAMPLES = int(os.environ.get("SCHEMATHESIS_EXAMPLES") or 10)
SEED = [] if os.environ.get("SCHEMATHESIS_EXAMPLES") else ["--seed", "1"]
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("schemathesis")
    tiny.write(folder / "models", "finder", tiny.finder())
    with running_triton(folder / "models", folder) as triton, running_stack(triton, folder, "finder") as stack:
        yield stack


@pytest.mark.timeout(60 + 10 * EXAMPLES)
def test_generated_requests_find_nothing(service: Stack, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "schemathesis.cli", "--config-file", str(HERE / "schemathesis.toml"), "--no-color"]
    options = ["--checks", "all", "--max-examples", str(EXAMPLES), *SEED]
    done = subprocess.run(
        [*command, "run", f"{service.base_url}/openapi.json", *options],
        cwd=tmp_path,  # it leaves a folder of its own
        env=os.environ | {"SCHEMATHESIS_HOOKS": "tests.support.generated", "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    print(done.stdout)
    assert done.returncode == 0, done.stdout
    cases = re.search(r"(\d+) generated", done.stdout)
    assert cases and int(cases[1]) >= 300, "too few requests to mean anything"
