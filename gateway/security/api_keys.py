"""API keys: who asks, and whose a task is. Keys are stored as their SHA-256 only."""

import hashlib
import hmac
import re
import secrets
import uuid
from pathlib import Path
from typing import NamedTuple

from gateway.settings import RATE, Settings, SettingsError, is_loopback

# Keys have 256 random bits: a plain digest is enough, there is nothing to guess.
_PREFIX = "yolo_"
_ENTRY = re.compile(rf"(?P<name>[A-Za-z0-9._-]{{1,64}}):(?P<digest>[0-9a-fA-F]{{64}})(?::(?P<rate>{RATE}))?")
_TAG_LENGTH = 16


class Key(NamedTuple):
    """One accepted key. Keys of one name are one owner: so a key is replaced without losing its tasks."""

    name: str
    digest: bytes
    rate: str | None = None


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
    if settings.api_keys_file:
        try:
            text = Path(settings.api_keys_file).read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsError(f"API_KEYS_FILE={settings.api_keys_file}: {error}") from error
        keys += _parse(text, settings.api_keys_file)
        if not keys:  # an emptied file must not open the service
            raise SettingsError(f"{settings.api_keys_file} has no key; make one with `python -m gateway keys new`")
    return Keyring(keys)


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError when the gateway would be open to others without having been told to."""
    if not (is_loopback(settings.reachable_on) or settings.allow_open or load_keys(settings)):
        name = "PUBLISHED_ON" if settings.published_on else "HOST"
        raise SettingsError(
            f"{name}={settings.reachable_on} lets others in, and there are no API keys: make one with "
            "`python -m gateway keys new` and set API_KEYS_FILE, or set ALLOW_OPEN=true to serve whoever comes"
        )


def new_key(name: str) -> tuple[str, str]:
    """A new key, and the entry to store for it."""
    key = _PREFIX + secrets.token_urlsafe(32)
    return key, f"{name}:{hashlib.sha256(key.encode()).hexdigest()}"


def new_id(owner: str) -> str:
    """An id that cannot be guessed, for a task or a batch. It is bound to its owner, when it has one."""
    identity = uuid.uuid4().hex
    return identity + _tag(identity, owner) if owner else identity


def is_owner(owner: str, identity: str) -> bool:
    """Whether `new_id` made the id for this owner. Whoever writes another owner's tag has written another id."""
    tag = identity[-_TAG_LENGTH:]
    return hmac.compare_digest(_tag(identity[:-_TAG_LENGTH], owner).encode(), tag.encode())


def _tag(identity: str, owner: str) -> str:
    return hashlib.sha256(f"{owner}:{identity}".encode()).hexdigest()[:_TAG_LENGTH]


def _parse(text: str, where: str) -> list[Key]:
    """Entries between white space or commas; from # to the end of a line is a comment."""
    entries = [entry for line in text.splitlines() for entry in re.split(r"[\s,]+", line.partition("#")[0]) if entry]
    keys = []
    for number, entry in enumerate(entries, 1):
        found = _ENTRY.fullmatch(entry)
        if found is None:
            raise SettingsError(
                f"{where}: entry {number} is not NAME:SHA256 or NAME:SHA256:RATE, with a RATE such as 600/minute; "
                "make one with `python -m gateway keys new`"
            )
        keys.append(Key(found["name"], bytes.fromhex(found["digest"]), found["rate"]))
    return keys
