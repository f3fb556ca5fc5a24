"""The name under which a model is served: a folder's, and part of the names of its engines."""

import re
import sys
import unicodedata
from pathlib import Path

from export.errors import ExportError, shortened

# Characters, all of one byte. A folder's name has 255 at most, and Triton's candidate and TensorRT's engines add to it.
LONGEST = 128
ALLOWED = "letters, digits, '_', '-' and '.', beginning with a letter or digit"


def check(name: str) -> None:
    """Raises ExportError for a name that Triton, a folder or an engine could not have."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise ExportError(f"NAME={shortened(name, 60)} is no model name; use {ALLOWED}")
    if len(name) > LONGEST:
        raise ExportError(f"NAME={shortened(name, 60)} has {len(name)} characters; use {LONGEST} at most")


def of_file(path: str, option: str = "NAME") -> str:
    """A name made of a file's: `my model (1).pt` → `my-model-1`.

    Raises ExportError, which asks for it with `option`, where letters or digits would be lost.
    """
    stem = Path(path).stem
    plain = "".join(each for each in unicodedata.normalize("NFKD", stem) if not unicodedata.combining(each))
    allowed = re.sub(r"-*[^A-Za-z0-9_.-][^A-Za-z0-9_.]*", "-", plain)
    name = (allowed if allowed == plain else allowed.rstrip("-")).lstrip("_.-")
    lost = any(each.isalnum() and not each.isascii() for each in plain)
    if lost or not name or len(name) > LONGEST:
        raise ExportError(f"no model name can be made of {shortened(stem, 60)!r}; give one with {option}= ({ALLOWED})")
    return name


def main() -> int:
    """Print the name of a file for make, or one line that says why there is none."""
    try:
        print(of_file(sys.argv[1], "MODEL"))
    except ExportError as error:
        print(error)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
