"""`python -m gateway`: what is done by hand. `keys new` makes an API key."""

import argparse
import os
import re
import secrets
import sys

from gateway.secret_files import SecretError, secret
from gateway.security.api_keys import new_key
from gateway.webhooks.signing import secret_of


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m gateway")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    keys = commands.add_parser("keys", help="API keys").add_subparsers(required=True, metavar="COMMAND")
    new = keys.add_parser("new", help="make a key: print it once, and the line to store")
    new.add_argument("--name", type=_name, default=f"key-{secrets.token_hex(3)}", help="whose key it is")
    new.set_defaults(run=lambda options: print_new_key(options.name))
    webhook = keys.add_parser("webhook", help="print the webhook secret of a key; WEBHOOK_SECRET must be set")
    webhook.add_argument("--name", type=_name, required=True, help="the name of the key")
    webhook.set_defaults(run=lambda options: print_webhook_secret(options.name))
    options = parser.parse_args()
    try:
        status: int = options.run(options)
    except SecretError as error:
        print(f"gateway: {error}", file=sys.stderr)
        return 2
    return status


def print_new_key(name: str) -> int:
    """The key is kept nowhere, so this is the one time that it is seen."""
    key, line = new_key(name)
    print(f"key, for the client, not shown again:  {key}")
    print(f"entry, for API_KEYS or API_KEYS_FILE:   {line}")
    if service_secret():
        return print_webhook_secret(name)
    return 0


def print_webhook_secret(name: str) -> int:
    """What the client checks deliveries of its own tasks with."""
    secrets = service_secret().split()
    if not secrets:
        print("gateway: WEBHOOK_SECRET is not set; give the one that the service has", file=sys.stderr)
        return 2
    try:
        own = secret_of(secrets[0], name)
    except ValueError:
        print("gateway: WEBHOOK_SECRET is not whsec_ and base64; give the one that the service has", file=sys.stderr)
        return 2
    print(f"webhook secret, for the client:         {own}")
    return 0


def service_secret() -> str:
    """WEBHOOK_SECRET of the environment, or of a file."""
    return secret("WEBHOOK_SECRET", os.environ) or ""


def _name(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", text):
        raise argparse.ArgumentTypeError("give 1 to 64 letters, digits, dots, _ and -")
    return text


if __name__ == "__main__":
    sys.exit(main())
