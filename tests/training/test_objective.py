"""Losses against plain loops and the paper's formulas."""

import pytest
import torch
from cologen.prw.router import route
from cologen.training.objective import add_noise, compute_usage, count_usage, draw_times, task_loss, veteran_loss

B, L, D, N, BLOCKS = 3, 5, 8, 4, 6


def given(seed=0, per="sample", batch=B):
    g = torch.Generator().manual_seed(seed)
    h = torch.randn(BLOCKS, batch, L, D, generator=g)
    weights = [torch.randn(D, N, generator=g).requires_grad_() for _ in range(BLOCKS)]
    return weights, [route(h[i], weights[i], per=per) for i in range(BLOCKS)]


@pytest.mark.parametrize("per", ["sample", "token"])
def test_usage_counts_what_was_chosen(per):
    _, routes = given(per=per)
    choices = [int(e) for r in routes for e in r.expert.flatten()]
    for newest in range(N):
        assert float(compute_usage(routes, newest)) == pytest.approx(choices.count(newest) / len(choices))
    found = count_usage(routes, N)
    assert found.tolist() == pytest.approx([choices.count(e) / len(choices) for e in range(N)])


def test_usage_has_the_gradient_of_the_soft_share():
    weights, routes = given()
    used = compute_usage(routes, N - 1)
    found = torch.autograd.grad(used, weights)
    weights, routes = given()
    soft = sum(r.probs[b, N - 1] for r in routes for b in range(B)) / (B * BLOCKS)
    expected = torch.autograd.grad(soft, weights)
    assert all(torch.allclose(a, b, atol=1e-7) for a, b in zip(found, expected))
    assert max(g.abs().max() for g in found) > 1e-3


@pytest.mark.parametrize("rho, sign", [(1.0, -1), (0.0, 1)])
def test_the_veteran_loss_pulls_usage_towards_rho(rho, sign):
    weights, routes = given()
    newest = 1
    used = compute_usage(routes, newest)
    assert 0 < used < 1
    loss = veteran_loss(used, rho, 0.5)
    assert float(loss) == pytest.approx(0.5 * abs(float(used) - rho))
    (pull,) = torch.autograd.grad(loss, used, retain_graph=True)
    assert float(pull) == sign * 0.5
    with torch.no_grad():
        for w, g in zip(weights, torch.autograd.grad(loss, weights)):
            w -= 50 * g
    _, before = given()
    g = torch.Generator().manual_seed(0)
    h = torch.randn(BLOCKS, B, L, D, generator=g)
    after = [route(h[i], weights[i]) for i in range(BLOCKS)]
    assert sign * float(compute_usage(after, newest)) < sign * float(compute_usage(before, newest))


def test_a_first_stage_with_rho_one_and_one_expert_costs_nothing():
    routes = [route(torch.randn(2, L, D), torch.randn(D, 1)) for _ in range(BLOCKS)]
    assert float(veteran_loss(compute_usage(routes, 0), 1.0, 0.5)) == 0


def test_the_path_runs_from_picture_to_noise_with_the_velocity_that_is_learned():
    x, e = torch.randn(2, 16, 4, 4), torch.randn(2, 16, 4, 4)
    assert torch.equal(add_noise(x, e, torch.zeros(2)), x) and torch.equal(add_noise(x, e, torch.ones(2)), e)
    t, step = torch.tensor([0.2, 0.7]), 1e-3
    slope = (add_noise(x.double(), e.double(), t + step) - add_noise(x.double(), e.double(), t)) / step
    assert float(task_loss(slope, x, e).max()) < 1e-6
    by_hand = [sum(float(v) ** 2 for v in (0 - (e[i] - x[i])).flatten()) / x[i].numel() for i in range(2)]
    assert task_loss(torch.zeros_like(x), x, e).tolist() == pytest.approx(by_hand, rel=1e-5)
    assert task_loss(torch.zeros_like(x).bfloat16(), x.bfloat16(), e.bfloat16()).dtype == torch.float32


def test_a_shift_multiplies_the_odds_of_noise():
    plain, shifted = (draw_times(1000, torch.Generator().manual_seed(0), shift=s).double() for s in (1.0, 3.0))
    assert torch.allclose(shifted / (1 - shifted), 3 * plain / (1 - plain), rtol=1e-3)


def test_times_are_the_sigmoid_of_a_normal():
    times = draw_times(200_000, torch.Generator().manual_seed(0))
    assert 0 < times.min() and times.max() < 1
    for z in (-1.0, 0.0, 1.0):
        below = (times < torch.tensor(z).sigmoid()).float().mean()
        assert float(below) == pytest.approx(float(torch.distributions.Normal(0, 1).cdf(torch.tensor(z))), abs=5e-3)
