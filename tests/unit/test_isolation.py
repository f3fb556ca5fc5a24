"""Tasks run beside each other, but for one that was lost before."""

import threading
import time

from gateway.worker.isolation import Room


def test_many_share_the_room() -> None:
    room = Room()
    with room.entered(alone=False) as first, room.entered(alone=False) as second:
        assert first and second


def test_one_that_is_to_be_alone_waits_for_the_others_and_lets_nobody_in() -> None:
    room, seen = Room(), list[str]()

    def be_alone() -> None:
        with room.entered(alone=True) as may_run:
            seen.append(f"alone {may_run}")
            time.sleep(0.1)
            seen.append("alone leaves")

    with room.entered(alone=False):
        lonely = threading.Thread(target=be_alone)
        lonely.start()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            with room.entered(alone=False) as may_run:
                if not may_run:
                    break
        assert not may_run, "it is waiting, so nobody else begins"
        with room.entered(alone=True) as may_run:
            assert not may_run, "one at a time"
        seen.append("the first leaves")
    room.wait_until_shared()
    seen.append("shared again")
    lonely.join()
    assert seen == ["the first leaves", "alone True", "alone leaves", "shared again"]
    with room.entered(alone=False) as may_run:
        assert may_run


def test_a_defect_inside_leaves_the_room_open() -> None:
    room = Room()
    try:
        with room.entered(alone=True):
            raise ValueError("planted")
    except ValueError:
        pass
    room.wait_until_shared()
    with room.entered(alone=False) as may_run:
        assert may_run
