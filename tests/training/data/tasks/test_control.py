"""Classical control maps."""

import numpy as np
import torch
from cologen.training.data.tasks import control


def test_the_slope_is_the_gradient_where_there_is_one():
    plane = torch.rand(7, 9)
    row = plane[:1].numpy()
    assert np.allclose(control.square_slope(plane), np.square(np.gradient(plane.numpy())).sum(0), atol=1e-6)
    assert np.allclose(control.square_slope(plane[:1]), np.gradient(row, axis=1) ** 2, atol=1e-6)
    assert not control.square_slope(plane[:1, :1]).any()
