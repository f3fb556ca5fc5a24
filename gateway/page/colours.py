"""The colours of classes as the page draws them: those of the annotated picture."""

from functools import cache

from gateway.vision.colours import COUNT, Colour, class_colour, ink_on


@cache
def palette() -> list[tuple[str, str]]:
    """For each class id, modulo the length: its colour, and that of text on it, as CSS."""
    return [(_css(class_colour(index)), _css(ink_on(class_colour(index)))) for index in range(COUNT)]


def _css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
