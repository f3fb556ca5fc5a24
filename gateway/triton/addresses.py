"""Where the Tritons of TRITON_URL are: several addresses with commas between, names that have several."""

import socket
from collections.abc import Callable

NAME = "dns:///"  # before a name of which each address is a Triton
RESOLVE_SECONDS = 5.0  # pause between two looks at a name


class Unresolved(Exception):
    """A name has no address at the moment; the message is one line that says which and why."""


def is_several(url: str) -> bool:
    """Whether TRITON_URL may mean more than one Triton; otherwise gRPC takes it as it is."""
    return "," in url or NAME in url


def resolved(name: str, port: int) -> list[str]:
    """The addresses of a name, host:port each, in order. Blocks. Raises Unresolved."""
    try:
        found = {entry[4][0] for entry in socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)}
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no host name"
        raise Unresolved(f"TRITON_URL={NAME}{name}:{port}: the name has no address ({reason})") from error
    return [f"[{each}]:{port}" if ":" in str(each) else f"{each}:{port}" for each in sorted(map(str, found))]


class Addresses:
    """What TRITON_URL stands for; names are resolved at each `look`, by `resolve`, which tests may bring along."""

    def __init__(self, url: str, resolve: Callable[[str, int], list[str]] = resolved) -> None:
        self._entries = url.split(",")
        self._resolve = resolve
        self._last: dict[str, list[str]] = {}
        self.problems: dict[str, str] = {}  # by entry, as of the last look

    @property
    def change(self) -> bool:
        """Whether another look can find others."""
        return any(entry.startswith(NAME) for entry in self._entries)

    def look(self) -> list[str]:
        """The addresses now, each once, in the order of TRITON_URL. A name that fails keeps those it had. Blocks."""
        return list(dict.fromkeys(address for entry in self._entries for address in self._of(entry)))

    def _of(self, entry: str) -> list[str]:
        if not entry.startswith(NAME):
            return [entry]
        name, _, port = entry.removeprefix(NAME).rpartition(":")
        try:
            self._last[entry] = self._resolve(name.strip("[]"), int(port))
            self.problems.pop(entry, None)
        except Unresolved as problem:
            self.problems[entry] = str(problem)
        return self._last.get(entry, [])
