"""Whether strangers could reach a gateway that asks for no key."""

from gateway.security.api_keys import load_keys
from gateway.settings import Settings, SettingsError, is_loopback


def check_exposure(settings: Settings) -> None:
    """Raises SettingsError when the gateway would be open to others and no setting asks for that, or keys are wrong."""
    keys = load_keys(settings)
    if not (is_loopback(settings.reachable_on) or settings.allow_open or keys):
        name = "PUBLISHED_ON" if settings.published_on else "HOST"
        raise SettingsError(
            f"{name}={settings.reachable_on} lets others in, and there are no API keys: make one with "
            "`python -m gateway keys new` and set API_KEYS_FILE, or set ALLOW_OPEN=true to serve whoever comes"
        )
