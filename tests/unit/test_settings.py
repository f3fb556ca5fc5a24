from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load, rows
from gateway.values import fields

PAGE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_settings_have_defaults() -> None:
    assert load({}) == Settings()


def test_settings_are_read_from_the_environment() -> None:
    settings = load({"PORT": "8080", "CONFIDENCE": "0.4", "MODEL": "helmets", "UNRELATED": "1"})
    assert (settings.port, settings.confidence, settings.model) == (8080, 0.4, "helmets")


def test_an_empty_value_counts_as_not_given() -> None:
    assert load({"MODEL": ""}).model == "yolov5n"


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("PORT", "http", "a whole number from 1 to 65535"),
        ("PORT", "70000", "a whole number from 1 to 65535"),
        ("CONFIDENCE", "25", "a number from 0 to 1"),
        ("MAX_IMAGE_BYTES", "10MB", "a whole number of at least 1"),
        ("VISION_WAIT", "0", "a number above 0 to 60"),
        ("FETCH_TIMEOUT", "-1", "a number above 0"),
        ("FETCH_URLS", "maybe", "true or false"),
        ("LOG_LEVEL", "loud", "debug or error or info or warning"),
        ("LOG_FORMAT", "xml", "json or text"),
        ("OUTBOUND_PORTS", "443;8443", "ports with commas between, such as 443,8443"),
        ("WEBHOOK_DELAYS", "5s", "seconds with commas between, such as 5,30,120"),
    ],
)
def test_a_bad_value_is_told_with_what_is_allowed(name: str, value: str, allowed: str) -> None:
    with pytest.raises(SettingsError) as caught:
        load({"MODEL": "helmets", name: value})
    assert str(caught.value) == f"{name}={value}: give {allowed}"


def test_what_a_pattern_allows_is_told_in_words() -> None:
    for name in fields(Settings):
        try:
            load({name.upper(): "?"})
        except SettingsError as error:
            assert not str(error).endswith("give text")


def test_every_setting_is_documented() -> None:
    text = PAGE.read_text()
    for name, default, description in rows():
        assert f"| `{name}` | `{default}` | {description} |" in text
