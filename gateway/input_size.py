"""How large the images are that a model takes, as YOLOv5's `imgsz` says it."""

# Pixels: one number, the longer side of an image or both sides of a square; or (height, width) of a fixed input.
InputSize = int | tuple[int, int]


def sides_hw(size: InputSize) -> tuple[int, int]:
    """The largest height and width, pixels."""
    return (size, size) if isinstance(size, int) else size


def of_sides(height: int, width: int) -> InputSize:
    """The size of a fixed input, pixels."""
    return height if height == width else (height, width)


def size_text(size: InputSize) -> str:
    """The size for a reader, as `640` or, height before width, `320x640`."""
    return str(size) if isinstance(size, int) else f"{size[0]}x{size[1]}"
