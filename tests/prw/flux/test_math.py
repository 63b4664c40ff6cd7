"""Shortcuts that a CPU takes give what the formulas give."""

import pytest
import torch
from cologen.prw.flux.math import FEW_KEYS, attend_by_formula, attention, rotary, rotate

AXES, TOKENS = (4, 6, 6), 12


def draw(*shape: int, dtype=torch.float32) -> torch.Tensor:
    return torch.randn(shape, dtype=dtype, requires_grad=True)


def rotate_by_matrices(x: torch.Tensor, pe: torch.Tensor) -> torch.Tensor:
    """Multiplies each pair of channels by its 2 x 2 matrix."""
    pairs = x.to(pe).reshape(*x.shape[:-1], -1, 2)
    return torch.einsum("bhlpij,bhlpj->bhlpi", pe.expand(len(x), -1, -1, -1, -1, -1), pairs).reshape(x.shape).to(x)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_is_that_of_the_matrices(dtype):
    torch.manual_seed(0)
    pe = rotary(torch.randint(0, 50, (2, TOKENS, 3)).float(), AXES, 10_000)
    # heads that lie between others in memory, as they do in a block
    x = draw(2, TOKENS, 3, sum(AXES), dtype=dtype)
    mine, naive = rotate(x.transpose(1, 2), pe), rotate_by_matrices(x.transpose(1, 2), pe)
    upstream = torch.randn(mine.shape).to(dtype)
    gradients = [torch.autograd.grad(y, x, upstream)[0] for y in (mine, naive)]
    tolerance = {"rtol": 0.0, "atol": 1e-6} if dtype == torch.float32 else {"rtol": 2**-7, "atol": 1e-3}
    torch.testing.assert_close(mine, naive, **tolerance)
    torch.testing.assert_close(*gradients, **tolerance)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rotation_takes_whatever_lies_in_memory(dtype):
    """Other extensions may hand over slices, and positions in another type."""
    torch.manual_seed(0)
    pe = rotary(torch.randint(0, 50, (2, TOKENS, 3)).float(), AXES, 10_000).to(dtype)
    width = sum(AXES)
    odd, apart = torch.randn(2, 3, TOKENS, width + 1)[..., 1:], torch.randn(2, 3, TOKENS, 2 * width)[..., ::2]
    for x in (odd, apart):
        torch.testing.assert_close(
            rotate(x, pe), rotate_by_matrices(x, pe), rtol=0, atol=0.06 if dtype == torch.bfloat16 else 1e-6
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("under_autocast", [False, True])
def test_attention_by_the_formula_is_as_exact_as_the_fused_one(dtype, under_autocast):
    """Against fp64, also where scores are high; autocast must not take the scores' precision."""
    torch.manual_seed(0)
    q, k, v = (3 * draw(2, 2, length, 32).detach() for length in (9, 14, 14))
    q, k, v = (x.to(dtype).requires_grad_() for x in (q, k, v))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    fused = torch.nn.functional.scaled_dot_product_attention(q, k, v)
    with torch.autocast("cpu", torch.bfloat16, enabled=under_autocast):
        mine = attend_by_formula(q, k, v)
    upstream = torch.randn(exact.shape).to(dtype)
    expected = torch.autograd.grad(exact, (q, k, v), upstream.double())

    def errors(y: torch.Tensor) -> list[float]:
        found = (y, *torch.autograd.grad(y, (q, k, v), upstream))
        pairs = zip(found, (exact, *expected), strict=True)
        return [float((a.detach().double() - b.detach()).norm() / b.detach().norm()) for a, b in pairs]

    assert mine.dtype == dtype
    assert all(a <= 2 * b + 1e-7 for a, b in zip(errors(mine), errors(fused), strict=True))


@pytest.mark.parametrize("keys", [FEW_KEYS, FEW_KEYS + 1])
def test_both_ways_of_attention_agree(keys):
    torch.manual_seed(0)
    pe = rotary(torch.randint(0, 50, (1, keys, 3)).float(), AXES, 10_000)
    q, k, v = draw(1, 2, 5, sum(AXES)), draw(1, 2, keys, sum(AXES)), draw(1, 2, keys, sum(AXES))
    expected = attend_by_formula(rotate_by_matrices(q, pe[:, :, :5]), rotate_by_matrices(k, pe), v)
    found = attention(q, k, v, pe)
    torch.testing.assert_close(found, expected.transpose(1, 2).flatten(2), rtol=0, atol=1e-5)
