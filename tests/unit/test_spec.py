import pytest

from export.config import Serving, config_pbtxt
from export.declared import parse
from gateway.errors import ModelMismatch
from gateway.triton.spec import image_size, label_question


@pytest.mark.parametrize(
    ("size_hw", "square"), [((640, 640), False), ((640, 640), True), ((192, 320), True), ((320, 192), True)], ids=str
)
@pytest.mark.parametrize("one_image", [False, True], ids=["batches", "one image"])
def test_the_size_of_the_input_is_that_of_the_config(size_hw: tuple[int, int], square: bool, one_image: bool) -> None:
    sides = size_hw if size_hw[0] != size_hw[1] else None
    serving = Serving(name="a", imgsz=max(size_hw), stride=32, square=square, sides_hw=sides, one_image=one_image)
    assert image_size("a", parse(config_pbtxt(serving))) == size_hw


def test_the_question_for_labels_has_a_shape_that_the_model_takes() -> None:
    inputs, _ = label_question((192, 320))
    assert inputs[0].shape() == [1, 192, 320, 3]


@pytest.mark.parametrize("dims", [[], [3], [-1, 640, 3]], ids=str)
def test_odd_dims_leave_the_parameter(dims: list[int]) -> None:
    config = parse(config_pbtxt(Serving(name="a", imgsz=640, stride=32, square=False)))
    config.input[0].dims[:] = dims
    assert image_size("a", config) == (640, 640)


def test_a_config_of_free_sides_without_the_size_is_of_another_make() -> None:
    config = parse(config_pbtxt(Serving(name="a", imgsz=640, stride=32, square=False)))
    del config.parameters["imgsz"]
    with pytest.raises(ModelMismatch, match="lacks the parameter imgsz"):
        image_size("a", config)
