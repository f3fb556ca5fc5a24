"""What `make plan` calculates, from figures that are easy to follow and from those that were measured."""

import subprocess
import sys
from dataclasses import replace

import msgspec
import pytest

from benchmarks.plan import FILE, Capacity, Stage, Wanted, erlang_c, main, report, sized, walls
from tests.support.stack import ROOT

MEASURED = Capacity(
    machine="paper",
    cores=2,
    image_bytes=100_000,
    workers=2,
    cpu_ms={"gateway": 1.0, "worker": 4.0, "redis": 1.0, "triton": 0.5, "backend": 0.5},
    client_cpu_ms=1.0,
    memory_mb={"gateway": 100.0, "worker": 100.0, "redis": 50.0, "triton": 50.0, "backend": 50.0},
    per_second=250.0,
    worker_per_second=200.0,
    alone_ms=10.0,
    redis={"file_bytes": 102_000.0},
    latencies=[],
)
WANTED = Wanted(rate=500, image_bytes=100_000, triton_per_second=400, triton_ms=10, link_bytes=1.25e9, disk_bytes=500e6)


def test_erlang_c_is_that_of_the_textbook() -> None:
    assert erlang_c(1, 0.6) == pytest.approx(0.6)  # M/M/1: as often as it is busy
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert erlang_c(10, 8.0) == pytest.approx(0.409, abs=0.001)


def test_a_stage_that_is_hardly_busy_makes_nobody_wait() -> None:
    assert Stage("gateway", 10, 1000.0, 1.0, 1.0).wait_ms(100) == 0.0
    one, two = (Stage("gateway", count, 1000.0, 1.0, 1.0).wait_ms(900) for count in (1, 2))
    assert one == pytest.approx(0.5 * 4.4998 / 100 * 1e3, rel=0.001)  # ln(0.9 / 0.01) / (1000 - 900)
    assert two < one / 4


def test_the_fewest_that_are_no_busier_than_they_should_be() -> None:
    stacks, kinds = sized(MEASURED, WANTED, most_ms=1000)
    counts = {kind.name: kind.count for kind in kinds}
    # One worker process: 3 tasks of 15 ms (its own) + 10 ms (Triton's), so 120 a second.
    assert (stacks, counts) == (1, {"gateway process": 1, "worker process": 6, "Redis": 1, "Triton": 2})


def test_a_shorter_latency_takes_more_and_past_the_first_wall_there_are_stacks() -> None:
    (stacks, few), (more, many) = (sized(MEASURED, WANTED, most_ms) for most_ms in (1000, 10))
    assert stacks == more == 1
    assert sum(kind.wait_ms(WANTED.rate) for kind in many) <= 10 < sum(kind.wait_ms(WANTED.rate) for kind in few)
    assert sized(MEASURED, replace(WANTED, rate=7001), 1000)[0] == 11
    assert sized(MEASURED, replace(WANTED, rate=700), most_ms=0.5)[0] > 1  # one Redis so busy makes them wait longer


def test_the_walls_of_one_redis() -> None:
    assert [(wall.what, round(wall.per_second)) for wall in walls(MEASURED, WANTED)] == [
        ("its one thread", 1000),
        ("its disk", 4902),
        ("its host's network", 11905),
    ]
    assert walls(MEASURED, replace(WANTED, replicas=2, image_bytes=5e6))[0].per_second == pytest.approx(79.4, abs=0.1)


def test_what_cannot_be_is_said() -> None:
    with pytest.raises(ValueError, match=r"P99=15: one image alone takes 20 ms; give more, or a faster model"):
        report(MEASURED, WANTED, 15)
    command = [sys.executable, "-m", "benchmarks.plan", "--rate=100"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1) and "give RATE=" in done.stderr


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--rate=0", "plan: RATE=0: give a number from 0.001 to 1,000,000"),
        ("--rate=1e300", "plan: RATE=1e300: give a number from 0.001 to 1,000,000"),
        ("--p99=soon", "plan: P99=soon: give a number from 1 to 10,000,000"),
        ("--kb=1e9", "plan: KB=1e9: give a number from 0.1 to 100,000"),
        ("--triton-ms=nan", "plan: TRITON_MS=nan: give a number from 0.001 to 1,000,000"),
        ("--replicas=-1", "plan: REPLICAS=-1: give a whole number from 0 to 10"),
        ("--elsewhere=no", "plan: ELSEWHERE=no: give a whole number from 0 to 1"),
    ],
)
def test_a_value_without_meaning_is_one_line(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["plan", "--rate=100", "--triton=400", given])
    with pytest.raises(SystemExit, match=r"^2$"):
        main()
    assert capsys.readouterr().err == f"{said}\n"


def test_the_longest_calculation_ends_soon() -> None:
    """Images that Redis' disk takes minutes for: millions of stacks, which are not counted one by one."""
    wanted = replace(WANTED, rate=1e6, image_bytes=1e8, disk_bytes=1e6)
    stacks, kinds = sized(MEASURED, wanted, 1000)
    assert stacks > 1e8 and sum(kind.wait_ms(1e6 / stacks) for kind in kinds) <= 1000


def test_it_comes_to_what_was_measured() -> None:
    """Two cores shared by all parts and the load, which is what was measured, are two servers."""
    measured = msgspec.json.decode(FILE.read_bytes(), type=Capacity)
    whole_ms = sum(measured.cpu_ms.values()) + measured.client_cpu_ms
    machine = Stage("machine", measured.cores, 1e3 / whole_ms, whole_ms, 0.0)
    assert measured.cores * machine.per_second == pytest.approx(measured.per_second, rel=0.2)
    for seen in measured.latencies:  # what is calculated is the least: nothing of the machine's own hiccups is in it
        assert measured.alone_ms + machine.wait_ms(seen.rate) < seen.p99
