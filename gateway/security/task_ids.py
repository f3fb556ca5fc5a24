"""Ids of tasks and batches, each bound to the key that made it."""

import hashlib
import hmac
import os

_TAG_LENGTH = 16


def new_id(owner: str) -> str:
    """An id that cannot be guessed, for a task or a batch. It is bound to its owner, when it has one."""
    identity = os.urandom(16).hex()
    return identity + _tag(identity, owner) if owner else identity


def is_owner(owner: str, identity: str) -> bool:
    """Whether `new_id` made the id for this owner. Whoever writes another owner's tag has written another id."""
    tag = identity[-_TAG_LENGTH:]
    return hmac.compare_digest(_tag(identity[:-_TAG_LENGTH], owner).encode(), tag.encode())


def _tag(identity: str, owner: str) -> str:
    return hashlib.sha256(f"{owner}:{identity}".encode()).hexdigest()[:_TAG_LENGTH]
