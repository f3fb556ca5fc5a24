from pathlib import Path

import pytest

from gateway.settings import Settings, SettingsError, load, rows

README = Path(__file__).parents[2] / "README.md"


def test_settings_have_defaults() -> None:
    assert load({}) == Settings()


def test_settings_are_read_from_the_environment() -> None:
    settings = load({"PORT": "8080", "CONFIDENCE": "0.4", "MODEL": "helmets", "UNRELATED": "1"})
    assert (settings.port, settings.confidence, settings.model) == (8080, 0.4, "helmets")


def test_an_empty_value_counts_as_not_given() -> None:
    assert load({"MODEL": ""}).model == "yolov5n"


@pytest.mark.parametrize(
    ("name", "value"), [("PORT", "http"), ("PORT", "70000"), ("CONFIDENCE", "25"), ("LOG_LEVEL", "loud")]
)
def test_a_bad_value_is_named(name: str, value: str) -> None:
    with pytest.raises(SettingsError, match=f"^{name}={value}: "):
        load({name: value})


def test_every_setting_is_in_the_readme() -> None:
    text = README.read_text()
    for name, default, description in rows():
        assert f"| `{name}` | `{default}` | {description} |" in text
