"""Several stacks behind one address: HAProxy, as docs/scaling.md has it, sends each API key to the same one."""

import hashlib
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from local.ports import free_ports
from tests.support.gateway import running_gateway
from tests.support.pictures import encoded
from tests.support.stack import ROOT, get_status, running_program, wait_until

KEYS = [f"yolo-{number:040d}" for number in range(16)]
PICTURE = encoded(64, 48)


@pytest.fixture
def proxy(redis_url: str, tmp_path: Path) -> Iterator[str]:
    """Two stacks, each with a database of its own, behind one address."""
    if shutil.which("haproxy") is None:
        pytest.skip("haproxy is not installed")
    found = re.search(r"```haproxy\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    assert found is not None
    (port,) = free_ports(1)
    text = found[1].replace("bind :8080", f"bind 127.0.0.1:{port}")
    hashes = ",".join(f"k{at}:{hashlib.sha256(key.encode()).hexdigest()}" for at, key in enumerate(KEYS))
    with ExitStack() as exits:
        for name, database in (("one", 0), ("two", 1)):
            (tmp_path / name).mkdir()
            url = redis_url.replace("/0", f"/{database}")
            gateway = exits.enter_context(
                running_gateway(url, tmp_path / name, API_KEYS=hashes, DRAIN_SECONDS="0", TRUSTED_HOSTS="*")
            )
            text, replaced = re.subn(rf"server {name} \S+", f"server {name} 127.0.0.1:{gateway.port}", text)
            assert replaced == 1
        (tmp_path / "haproxy.cfg").write_text(text)
        log = tmp_path / "haproxy.log"
        process = exits.enter_context(running_program(["haproxy", "-f", str(tmp_path / "haproxy.cfg")], {}, log))
        wait_until(lambda: get_status(port, "/livez") == 200, process, log)
        yield f"http://127.0.0.1:{port}"


def test_a_key_finds_its_tasks_whichever_way_it_is_given(proxy: str) -> None:
    ids = set[str]()
    with httpx2.Client(base_url=proxy) as client:
        for key in KEYS:
            answer = client.post("/predict", content=PICTURE, headers={"X-API-Key": key})
            assert answer.status_code == 202
            path = f"/result/{answer.json()['task_id']}"
            ids.add(path)
            for given in ({"X-API-Key": key}, {"Authorization": f"Bearer {key}"}, {"Authorization": f"bearer {key}"}):
                assert client.get(path, headers=given).status_code == 200
        others = [client.get(path, headers={"X-API-Key": KEYS[0]}).status_code for path in ids]
    assert 200 in others and 404 in others, "both stacks have some of the keys"
