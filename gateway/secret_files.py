"""Secrets in files, as Docker and Kubernetes give them: NAME_FILE names the file that holds NAME.

Triton's image has this module and no package.
"""

from collections.abc import Mapping
from pathlib import Path


class SecretError(ValueError):
    """A secret cannot be read; the message names the variable and the file."""


def secret(name: str, environment: Mapping[str, str]) -> str:
    """What the environment, or the file it names, gives for `name`; empty when neither does. Raises SecretError."""
    given, path = environment.get(name, ""), environment.get(f"{name}_FILE")
    if not path:
        return given
    if given:
        raise SecretError(f"{name} and {name}_FILE are both set: give one of them")
    try:
        read = Path(path).read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SecretError(f"{name}_FILE={path}: {error}") from error
    if not read:
        raise SecretError(f"{name}_FILE={path}: the file is empty")
    return read
