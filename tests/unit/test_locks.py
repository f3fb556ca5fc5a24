"""The lock files say the same of a package: where they did not, an image could not be built."""

import re
from collections import defaultdict

from tests.support.stack import ROOT

LOCKS = ("serve", "all", "run", "export", "triton")
_ENTRY = re.compile(r"^([a-z0-9._-]+)(?:\[[^]]*\])?(==[^ ;\\]+).*\\\n((?:    --hash=.*\n)+)", re.MULTILINE)


def test_a_release_has_the_same_hashes_everywhere() -> None:
    found = defaultdict[str, dict[str, frozenset[str]]](dict)
    for lock in LOCKS:
        for name, version, hashes in _ENTRY.findall((ROOT / "requirements" / f"{lock}.txt").read_text()):
            found[name + version][lock] = frozenset(re.findall(r"sha256:\w{64}", hashes))
    assert {lock for locks in found.values() for lock in locks} == set(LOCKS)
    assert [release for release, locks in found.items() if len(set(locks.values())) > 1] == []
