"""`python -m gateway`: what is done by hand. `keys new` makes an API key."""

import argparse
import re
import secrets
import sys

from gateway.security.api_keys import new_key


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    keys = commands.add_parser("keys", help="API keys").add_subparsers(required=True, metavar="COMMAND")
    new = keys.add_parser("new", help="make a key: print it once, and the line to store")
    new.add_argument("--name", type=_name, default=f"key-{secrets.token_hex(3)}", help="whose key it is")
    new.set_defaults(run=lambda options: print_new_key(options.name))
    options = parser.parse_args()
    status: int = options.run(options)
    return status


def print_new_key(name: str) -> int:
    """The key is kept nowhere, so this is the one time that it is seen."""
    key, line = new_key(name)
    print(f"key, for the client, not shown again:  {key}")
    print(f"entry, for API_KEYS or API_KEYS_FILE:   {line}")
    return 0


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError("give 1 to 64 letters, digits, dots, _ and -")
    return text


if __name__ == "__main__":
    sys.exit(main())
