"""What the stream of features may read."""

import pytest
import torch
from cologen.prw.coredi.feature_stream import FeatureStream


def test_a_cell_may_read_what_its_tokens_may_on_the_average(flux):
    stream = FeatureStream.__new__(FeatureStream)
    stream.pool, stream._mask_of = torch.rand(3, 16).softmax(-1), None
    q, mask = torch.zeros(2, 1, 5 + 16, 4), torch.randn(21, 30, generator=torch.Generator().manual_seed(1))
    mask[7, 3], mask[5:, 4] = -torch.inf, -torch.inf
    found = stream._make_mask(mask, q, 5)
    assert found.shape == (3, 33) and not found[:, :3].any()
    for cell in range(3):
        for key in range(30):
            share = sum(float(stream.pool[cell, i]) * float(mask[5 + i, key].exp()) for i in range(16))
            assert float(found[cell, 3 + key].exp()) == pytest.approx(share, rel=1e-4)
    bools = mask > 0
    assert torch.allclose(stream._make_mask(bools, q, 5)[:, 3:].exp(), stream.pool @ bools[5:].float(), atol=1e-6)
