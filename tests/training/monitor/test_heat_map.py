"""Heat maps: their colours, where a token's value lies in the picture, and the sheet with its legend."""

import torch
from cologen.training.monitor.heat_map import HEAT, colour_heat, draw_heat_sheet, expand_tokens


def test_colours_go_from_dark_to_light_and_through_their_stops():
    ramp = colour_heat(torch.linspace(0, 1, 101))
    assert torch.allclose(ramp[::25], torch.tensor(HEAT) / 255, atol=1e-6)
    assert (ramp @ torch.tensor([0.2126, 0.7152, 0.0722])).diff().min() > 0  # in grey it is the same map
    assert torch.equal(colour_heat(torch.tensor([-1.0, 2.0])), ramp[[0, -1]])


def test_tokens_lie_where_they_are_and_are_cut_at_the_picture():
    values = torch.arange(12.0).reshape(1, 3, 4)
    pixels = expand_tokens(values, 16, (40, 64))
    assert pixels.shape == (1, 40, 64)
    assert torch.equal(expand_tokens(values, 1, (3, 4)), values)
    middles = expand_tokens(values, 16, (48, 64)).unfold(1, 16, 16).unfold(2, 16, 16)[..., 7:9, 7:9].mean((-1, -2))
    assert torch.allclose(middles, values, atol=0.1) and torch.equal(
        pixels[0], expand_tokens(values, 16, (48, 64))[0, :40]
    )


def test_a_sheet_has_a_row_a_source_and_its_legend():
    one, two = torch.zeros(1, 20, 30, 3), torch.ones(2, 20, 30, 3)
    alone, both = draw_heat_sheet([("a", one, 0.5)]), draw_heat_sheet([("a", one, 0.5), ("b", two, 0.1)])
    assert both.width > alone.width >= 400 and both.height > 2 * alone.height * 0.9
    colours = {
        tuple(pixel)
        for pixel in torch.frombuffer(bytearray(alone.tobytes()), dtype=torch.uint8).reshape(-1, 3).tolist()
    }
    assert {HEAT[0], HEAT[-1]} <= colours


def test_a_long_title_has_lines_of_its_own():
    picture, title = torch.zeros(1, 20, 20, 3), "inpaint, source 1: 20.4% of the attention, at most 40.9%"
    short, long = draw_heat_sheet([("a", picture, 0.5)]), draw_heat_sheet([(title, picture, 0.5)])
    assert long.width == short.width and long.height == short.height + long.width // 20
    assert not (
        torch.frombuffer(bytearray(long.tobytes()), dtype=torch.uint8).reshape(long.height, -1, 3)[:60, -4:] > 40
    ).any()
