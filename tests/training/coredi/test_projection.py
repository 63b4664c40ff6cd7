"""Features made narrow: BatchNorm over the whole collection, and the measures of its collapse."""

import math

import pytest
import torch
from cologen.training.coredi.projection import COV, ORTHO, Projection, effective_rank, overlap

WIDE, NARROW = 12, 4


def features(count=40, tokens=5):
    g = torch.Generator().manual_seed(0)
    mixed = torch.randn(count, tokens, WIDE, generator=g) @ torch.randn(WIDE, WIDE, generator=g)
    return mixed * torch.linspace(0.1, 30, WIDE) + 7


def moved(projection, by=0.3):
    noise = torch.randn(WIDE, NARROW, generator=torch.Generator().manual_seed(1))
    return (projection.start + by * noise).requires_grad_()


def test_it_is_torchs_batchnorm_over_all_features_with_its_gradient():
    seen, weight = features(), torch.randn(40 * 5, NARROW, generator=torch.Generator().manual_seed(2))
    projection = Projection.fit(seen, NARROW)
    p = moved(projection)
    found = projection.project(seen, p).flatten(0, 1)
    flat = seen.flatten(0, 1)
    standard = torch.nn.BatchNorm1d(WIDE, affine=False, eps=1e-12)(flat)
    expected = torch.nn.BatchNorm1d(NARROW, affine=False, eps=1e-4)(standard @ p)
    assert torch.allclose(found, expected, atol=1e-4)
    gradients = [torch.autograd.grad((out * weight).sum(), p)[0] for out in (found, expected)]
    assert torch.allclose(*gradients, atol=1e-3 * float(gradients[1].abs().max())) and gradients[1].abs().max() > 1
    assert torch.allclose(projection.covariance(p), torch.cov(expected.T, correction=0), atol=1e-4)


def test_it_begins_with_the_principal_components():
    seen = features()
    projection = Projection.fit(seen, NARROW)
    flat = seen.flatten(0, 1).double()
    _, _, directions = torch.linalg.svd((flat - flat.mean(0)) / flat.std(0, correction=0), full_matrices=False)
    assert overlap(projection.start, directions[:NARROW].T) == pytest.approx(1, abs=1e-5)
    assert overlap(projection.start, directions[-NARROW:].T) == pytest.approx(0, abs=1e-5)
    assert torch.allclose(projection.covariance(projection.start), torch.eye(NARROW), atol=1e-3)
    assert float(projection.penalty(projection.start)) == pytest.approx(0, abs=1e-6)
    for few, directions in ((seen, 12), (seen[:1], 4)):
        with pytest.raises(ValueError, match=f"of {len(few)} samples differ in {directions} directions"):
            Projection.fit(few, 13)


def test_the_penalty_is_its_formula():
    projection = Projection.fit(features(), NARROW)
    p = moved(projection).detach()
    z = projection.project(features(), p).flatten(0, 1).double()
    cov = ortho = 0.0
    for i in range(NARROW):
        for j in range(NARROW):
            ortho += (float(p[:, i] @ p[:, j]) - (i == j)) ** 2
            if i != j:
                cov += float((z[:, i] * z[:, j]).mean()) ** 2 / NARROW
    assert float(projection.penalty(p)) == pytest.approx(ORTHO * ortho + COV * cov, rel=1e-3)


def test_a_collapse_shows_in_the_effective_rank():
    projection = Projection.fit(features(), NARROW)
    ranks = [
        effective_rank(projection.covariance(p)) for p in (projection.start, projection.start[:, :1].expand(-1, 4))
    ]
    assert ranks == [pytest.approx(NARROW, rel=1e-3), pytest.approx(1, abs=1e-3)]
    assert effective_rank(torch.diag(torch.tensor([3.0, 1.0]))) == pytest.approx(
        math.exp(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))
    )
    assert effective_rank(torch.zeros(3, 3)) <= 1
