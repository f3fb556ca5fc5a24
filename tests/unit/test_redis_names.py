"""The names in Redis are in one file and in one table of the documentation."""

import re
from pathlib import Path

from gateway import redis_names

ROOT = Path(__file__).parents[2]


def test_no_other_module_spells_a_name() -> None:
    spelt = [
        path.name for path in (ROOT / "gateway").rglob("*.py") if re.search(r"[\"']f?(yolo|rq):", path.read_text())
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
