"""Answers of grounding, drawn and read back."""

import numpy as np
import pytest
from cologen.training.data.tasks.ground import COLOURS, outline_boxes, paint
from cologen.training.data.tasks.read_grounding import read_answer
from pictures import draw_two_things


@pytest.mark.parametrize("colour", ["red", "cyan", "yellow"])
@pytest.mark.parametrize("drift", [0, 25])
def test_drawn_answers_are_read_back(colour, drift):
    """Also when the colour and every pixel came back a little different."""
    base, things = draw_two_things()
    rng = np.random.default_rng(1)

    def drawn(area):
        answer = paint(base, area, COLOURS[colour], 1.0).astype(int)
        return (answer + rng.integers(-drift, drift + 1, answer.shape)).clip(0, 255).astype(np.uint8)

    one = read_answer(drawn(outline_boxes(things[:1], base.shape[:2])), base, "box", colour)
    assert one.largest == (12, 10, 38, 20) and one.mask.sum() == 38 * 20
    all_of_them = read_answer(drawn(outline_boxes(things, base.shape[:2])), base, "detect", colour)
    assert [(box.x0, box.y0, box.x1, box.y1) for box in all_of_them.boxes] == [(12, 10, 50, 30), (70, 60, 95, 90)]
    mask = read_answer(drawn(things[0].mask | things[1].mask), base, "mask", colour)
    assert np.array_equal(mask.mask, things[0].mask | things[1].mask)
