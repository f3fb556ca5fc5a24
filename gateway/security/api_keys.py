"""API keys: who is asking. Keys are stored as their SHA-256 only."""

import hashlib
import hmac
import re
import secrets
from pathlib import Path
from typing import NamedTuple

from gateway.settings import RATE, Settings, SettingsError

# Keys have 256 random bits: a plain digest is enough, there is nothing to guess.
_PREFIX = "yolo_"
_ENTRY = re.compile(
    rf"(?P<name>[A-Za-z0-9._-]{{1,64}}):(?P<digest>[0-9a-fA-F]{{64}})(?::(?P<rate>{RATE}))?(?P<high>:high)?"
)


class Key(NamedTuple):
    """One accepted key. Keys of one name are one owner: so a key is replaced without losing its tasks.

    With `high` it may send tasks of priority=high.
    """

    name: str
    digest: bytes
    rate: str | None = None
    high: bool = False


class Keyring:
    """The accepted keys; falsy when there are none, and then none is asked for."""

    def __init__(self, keys: list[Key]) -> None:
        self._keys = keys

    def __bool__(self) -> bool:
        return bool(self._keys)

    def find(self, presented: str) -> Key | None:
        """The key that was presented. Takes the same time whichever it is, and for a wrong one."""
        digest, found = hashlib.sha256(presented.encode()).digest(), None
        for key in self._keys:
            if hmac.compare_digest(key.digest, digest):
                found = key
        return found


def load_keys(settings: Settings) -> Keyring:
    """The keys of API_KEYS_FILE and API_KEYS. Raises SettingsError; its message holds nothing of the entries."""
    keys = _parse(settings.api_keys or "", "API_KEYS")
    if settings.api_keys and not keys:
        raise SettingsError(
            "API_KEYS is set and has no key; make one with `python -m gateway keys new`, or leave it empty for none"
        )
    if settings.api_keys_file:
        try:
            text = Path(settings.api_keys_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"API_KEYS_FILE={settings.api_keys_file}: {error}") from error
        keys += _parse(text, settings.api_keys_file)
        if not keys:  # an emptied file must not open the service
            raise SettingsError(f"{settings.api_keys_file} has no key; make one with `python -m gateway keys new`")
    return Keyring(keys)


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the entry to store for it."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


def _parse(text: str, where: str) -> list[Key]:
    """Entries between white space or commas; from # to the end of a line is a comment."""
    entries = [entry for line in text.splitlines() for entry in re.split(r"[\s,]+", line.partition("#")[0]) if entry]
    keys = []
    for number, entry in enumerate(entries, 1):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise SettingsError(
                f"{where}: entry {number} is not NAME:SHA256, behind it :RATE such as :600/minute, :high or both; "
                "make one with `python -m gateway keys new`"
            )
        keys.append(Key(found["name"], bytes.fromhex(found["digest"]), found["rate"], bool(found["high"])))
    return keys
