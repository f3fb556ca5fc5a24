"""The short forms of `make chaos`, `make fuzz` and `make overload`: one service, killed, spoilt and flooded in turn."""

import asyncio
from collections.abc import Callable, Coroutine, Iterator, Sequence
from pathlib import Path

import pytest

from reliability import attacks, chaos, fuzz, overload, surroundings
from reliability.hosts import acts
from reliability.hosts.network import unavailable
from reliability.load import photographs
from reliability.promises import Promise, table
from reliability.service import Service, running
from tests.support.shared import SHARED

pytestmark = [pytest.mark.long, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def service(model_repository: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    settings = {"WORKER_TTL": "3", **overload.QUICK.settings}
    with running(tmp_path_factory.mktemp("reliability"), model_repository, "yolov5n", settings=settings) as service:
        yield service


@pytest.fixture
def images() -> Sequence[bytes]:
    return photographs(SHARED)


def check(promises: Sequence[Promise], service: Service) -> None:
    broken = [promise.name for promise in promises if not promise.kept]
    assert not broken, f"{broken}\n{table(promises)}\n{service.tails()}"


Scenario = Callable[[Service, Sequence[bytes], chaos.Plan], Coroutine[None, None, list[Promise]]]


@pytest.mark.parametrize(
    "scenario",
    [chaos.everything_dies, chaos.triton_is_away, chaos.triton_restarts, chaos.redis_restarts, chaos.workers_roll],
)
def test_chaos(service: Service, images: Sequence[bytes], scenario: Scenario) -> None:
    service.wait_until_ready()
    check(asyncio.run(scenario(service, images, chaos.QUICK)), service)


def test_overload(service: Service, images: Sequence[bytes]) -> None:
    service.wait_until_ready()
    check(asyncio.run(overload.ten_times(service, images, overload.QUICK)), service)


def test_fuzz(service: Service, images: Sequence[bytes]) -> None:
    service.wait_until_ready()
    check(asyncio.run(fuzz.no_file_harms(service, images, SHARED, fuzz.QUICK)), service)


@pytest.mark.timeout(400)
def test_attacks(model_repository: Path, images: Sequence[bytes], tmp_path: Path) -> None:
    with running(tmp_path, model_repository, "yolov5n", settings=attacks.SETTINGS) as service:
        check(asyncio.run(attacks.all_of_them(service, images, attacks.QUICK)), service)


@pytest.mark.timeout(400)
def test_wrong_surroundings(model_repository: Path, images: Sequence[bytes], tmp_path: Path) -> None:
    promises = surroundings.all_of_them(
        tmp_path, model_repository, "yolov5n", images, attacks.QUICK, surroundings.QUICK_OUTAGE
    )
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(tmp_path.glob("*/*.log")))
    assert all(promise.kept for promise in promises), f"{table(promises)}\n{logs}"


@pytest.mark.timeout(500)
def test_several_hosts(model_repository: Path, images: Sequence[bytes], tmp_path: Path) -> None:
    if reason := unavailable():
        pytest.skip(reason)
    promises = acts.all_of_them(tmp_path, model_repository, "yolov5n", images, acts.QUICK)
    logs = "\n".join(f"== {path.name}\n{path.read_text()[-1500:]}" for path in sorted(tmp_path.glob("*.log")))
    assert all(promise.kept for promise in promises), f"{table(promises)}\n{logs}"
