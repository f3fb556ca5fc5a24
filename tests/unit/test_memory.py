"""A worker decodes into no more memory than it is given, whatever the images are."""

import io
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gateway.worker.memory import Memory
from tests.support.stack import ROOT

WIDTH, HEIGHT = 6000, 4000
PEAK = """
import sys
from pathlib import Path
from gateway.allocator import give_back_large_blocks
from gateway.vision.decode import decode, peak_bytes
from gateway.vision.header import probe

def peak():
    return int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024

give_back_large_blocks(4)
small, data = (Path(name).read_bytes() for name in sys.argv[1:])
decode(small)
Path("/proc/self/clear_refs").write_text("5")
before = peak()
decode(data)
print(peak() - before, peak_bytes(probe(data, max_pixels=10**9, max_side=10**5), len(data)))
"""
THREE_AT_ONCE = """
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from gateway.allocator import give_back_large_blocks
from gateway.queue.records import TaskRequest
from gateway.settings import Settings
from gateway.worker.pipeline import Pipeline
from tests.support.fakes import FakeTriton

give_back_large_blocks(4)
pipeline = Pipeline(FakeTriton(), Settings(max_decoding_bytes=int(sys.argv[2])))
data, asked = Path(sys.argv[1]).read_bytes(), TaskRequest(model="fake", accepted_at=0.0, annotate=True)
with ThreadPoolExecutor(3) as pool:
    sizes = [kept.shape for _, kept in pool.map(lambda _: pipeline.detect(data, asked), range(6))]
assert max(max(size) for size in sizes) <= 1920, "what waits for Triton is small"
print(int(next(line for line in open("/proc/self/status") if line.startswith("VmHWM")).split()[1]) * 1024)
"""


def saved(mode: str, form: str, **options: object) -> bytes:
    block = np.random.default_rng(1).integers(0, 255, (100, 100, 4), np.uint8)
    image = Image.fromarray(np.tile(block, (HEIGHT // 100, WIDTH // 100, 1))).convert(mode)
    if "save_all" in options:
        options["append_images"] = [Image.new(mode, image.size)]
    stream = io.BytesIO()
    image.save(stream, form, **options)
    return stream.getvalue()


COSTLY: dict[str, Callable[[], bytes]] = {
    "progressive CMYK": lambda: saved("CMYK", "JPEG", progressive=True),
    "progressive without subsampling": lambda: saved("RGB", "JPEG", progressive=True, subsampling=0),
    "PNG": lambda: saved("RGBA", "PNG", compress_level=1),
    "animated WebP": lambda: saved("RGBA", "WEBP", save_all=True, method=0, lossless=True),
    "lossless WebP": lambda: saved("RGBA", "WEBP", method=0, lossless=True),
    "GIF that restores": lambda: saved("L", "GIF", save_all=True, disposal=2, transparency=0),
    "BMP": lambda: saved("RGB", "BMP"),
}


def ran(program: str, *arguments: object) -> list[int]:
    command = [sys.executable, "-c", program, *map(str, arguments)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
    return [int(number) for number in done.stdout.split()]


@pytest.mark.parametrize("data", COSTLY.values(), ids=COSTLY)
def test_decoding_takes_no_more_than_its_header_tells(data: Callable[[], bytes], tmp_path: Path) -> None:
    small, large = tmp_path / "small", tmp_path / "large"
    Image.new("RGB", (64, 64)).save(small, "PNG")
    large.write_bytes(data())
    taken, told = ran(PEAK, small, large)
    assert WIDTH * HEIGHT * 3 < taken < 1.02 * told + 3_000_000


def test_three_tasks_together_stay_within_the_budget(tmp_path: Path) -> None:
    picture = tmp_path / "a.gif"
    picture.write_bytes(COSTLY["GIF that restores"]())
    one = WIDTH * HEIGHT * 12
    (small,), (large,) = ran(THREE_AT_ONCE, picture, one), ran(THREE_AT_ONCE, picture, 4 * one)
    assert small < large - 0.8 * one
    (alone,) = ran(THREE_AT_ONCE, picture, one // 10)
    assert alone < large - 0.8 * one, "an image beyond the budget is decoded, and alone"


def test_who_comes_first_is_served_first() -> None:
    memory, order = Memory(100), list[str]()

    def use(name: str, size: int) -> None:
        with memory.taken(size):
            order.append(name)

    with memory.taken(60):
        threads = []
        for name, size in (("larger", 1000), ("large", 10)):
            threads.append(threading.Thread(target=use, args=(name, size)))
            threads[-1].start()
            time.sleep(0.1)
        assert order == [], "the second does not overtake"
    for thread in threads:
        thread.join(5)
    assert order == ["larger", "large"]


def test_what_is_admitted_is_noted() -> None:
    noted = list[int]()
    memory = Memory(100, noted.append)
    with memory.taken(50), memory.taken(5):
        assert noted == [50, 5]
    with memory.taken(1000):
        assert sum(noted) == 90, "the whole of its lane"
    assert sum(noted) == 0


def test_what_fits_is_used_together() -> None:
    memory = Memory(100)
    with memory.taken(50), memory.taken(40):
        pass


def test_small_images_do_not_wait_for_large_ones() -> None:
    memory = Memory(100)
    with memory.taken(1000), memory.taken(5), memory.taken(5):
        waiting = threading.Thread(target=lambda: memory.taken(5).__enter__(), daemon=True)
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive(), "they have bounds of their own"
    waiting.join(5)
    assert not waiting.is_alive()
