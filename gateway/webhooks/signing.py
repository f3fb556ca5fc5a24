"""Signatures after Standard Webhooks, with a secret for each owner of tasks.

https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
"""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

from standardwebhooks import Webhook

_PREFIX = "whsec_"


def secret_of(secret: str, owner: str) -> str:
    """The secret of one owner, derived from that of the service: who has it can sign for no other owner."""
    own = hmac.digest(
        base64.b64decode(secret.removeprefix(_PREFIX)), f"yolo-webhook-key:{owner}".encode(), hashlib.sha256
    )
    return _PREFIX + base64.b64encode(own).decode()


class Signer:
    """Signs with every secret of the service: during a change of secrets receivers may hold either.

    What has an owner is signed with the owner's own secrets too, one for each; a receiver may hold any of them.
    """

    def __init__(self, secrets: str) -> None:
        self._secrets = secrets.split()

    def headers(self, webhook_id: str, body: bytes, seconds: float, owner: str = "") -> dict[str, str]:
        """The three headers of a delivery made at `seconds` since the epoch."""
        sent_at = datetime.fromtimestamp(int(seconds), UTC)
        owners = [secret_of(secret, owner) for secret in self._secrets] if owner else []
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(int(seconds)),
            "webhook-signature": " ".join(
                Webhook(secret).sign(webhook_id, sent_at, body.decode()) for secret in (*owners, *self._secrets)
            ),
        }
