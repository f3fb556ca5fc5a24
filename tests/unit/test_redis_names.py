"""The names in Redis are in one file and in one table of the documentation."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gateway import redis_names

ROOT = Path(__file__).parents[2]


def test_no_other_module_spells_a_name() -> None:
    spelt = [
        path.name
        for path in (ROOT / "gateway").rglob("*.py")
        if re.search(r"[\"']f?(\{_OURS\}|yolo|rq):", path.read_text())
    ]
    assert spelt == ["redis_names.py"]


def test_every_name_is_documented() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    names = {value for value in vars(redis_names).values() if isinstance(value, str) and value.startswith("yolo:")}
    made = [redis_names.image_key, redis_names.result_key, redis_names.picture_key, redis_names.webhook_key]
    names |= {each("<task_id>") for each in (*made, redis_names.job_key)}
    names |= {redis_names.batch_key("<batch_id>"), redis_names.idempotency_key("<digest>"), redis_names.QUEUE_KEY}
    names |= {redis_names.group_key("<batch_id or task_id>"), redis_names.client_key("<key or address>")}
    assert [name for name in sorted(names) if f"`{name}" not in page] == []


@pytest.mark.parametrize("module", ["gateway.web.app", "gateway.worker.loop", "gateway.webhooks.deliverer"])
def test_a_prefix_is_before_every_name_whatever_is_set_for_rq(module: str) -> None:
    code = (
        f"import {module}; from gateway import redis_names as names; from gateway.queue.workers import WORKERS_KEY;"
        "given = [*vars(names).values(), *names.TURNS, WORKERS_KEY, names.job_key('1'), names.execution_key('1')];"
        "print(*(each for each in given if isinstance(each, str) and (':yolo' in each or ':rq' in each)), sep='\\n')"
    )
    settings = {**os.environ, "REDIS_PREFIX": "shop", "RQ_KEY_PREFIX": "other"}
    done = subprocess.run([sys.executable, "-c", code], env=settings, capture_output=True, text=True, check=True)
    found = done.stdout.splitlines()
    assert len(found) > 25 and [name for name in found if not name.startswith(("shop:yolo", "shop:rq"))] == []


@pytest.mark.parametrize("process", ["web", "worker", "webhooks"])
def test_a_prefix_that_cannot_be_is_one_line(process: str) -> None:
    settings = {**os.environ, "REDIS_PREFIX": "my shop"}
    command = [sys.executable, "-m", f"gateway.{process}"]
    done = subprocess.run(command, env=settings, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert re.fullmatch(r"\w+: REDIS_PREFIX=my shop: give up to 64 letters, .*\n", done.stderr), done.stderr
