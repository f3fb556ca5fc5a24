import pytest

from export import model_name
from export.errors import ExportError


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("runs/best.pt", "best"),
        ("my model (1).pt", "my-model-1"),
        ("my - model.onnx", "my-model"),
        ("a--b_.v2.pt", "a--b_.v2"),
        ("-x.pt", "x"),
        (".hidden.pt", "hidden"),
        ("mod\u00e8le.pt", "modele"),
        ("mode\u0300le.pt", "modele"),
        ("a\nb.pt", "a-b"),
        ("n" * 128 + ".pt", "n" * 128),
    ],
)
def test_a_name_is_made_of_a_file(path: str, name: str) -> None:
    assert model_name.of_file(path) == name
    model_name.check(name)


@pytest.mark.parametrize("stem", ["\u65e5\u672c", "stra\u00dfe", "---", "n" * 129], ids=ascii)
def test_where_none_can_be_made_one_line_asks_for_it(stem: str) -> None:
    with pytest.raises(ExportError, match=r"^no model name can be made of [^\n]*NAME=[^\n]*$"):
        model_name.of_file(f"{stem}.pt")


@pytest.mark.parametrize("name", ["../up", "", ".hidden", "a b", "a/b", "-a", "a\nb"])
def test_a_name_that_is_no_folder_is_refused(name: str) -> None:
    with pytest.raises(ExportError, match="no model name"):
        model_name.check(name)


def test_a_name_that_is_too_long_is_refused_with_the_limit() -> None:
    with pytest.raises(ExportError, match=r"^NAME=n+\.\.\. has 129 characters; use 128 at most$"):
        model_name.check("n" * 129)
