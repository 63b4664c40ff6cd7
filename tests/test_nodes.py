"""Nodes as the host sees them: permanent ids, and pictures of any size."""

import pytest
import torch

pytestmark = pytest.mark.usefixtures("comfy")

# ids and the order of inputs are promises to every saved workflow: extend at the end, never change
INPUTS = {
    "CoLoGenLoadFlux": ["unet_name", "weight_dtype", "clip_name1", "clip_name2", "vae_name"],
    "CoLoGenLoadExperts": ["bank_name"],
    "CoLoGenApply": ["model", "experts"],
    "CoLoGenSource": [
        "conditioning", "vae", "image", "task", "strength", "expert_strength", "start", "end", "size", "region",
        "position", "shift_right", "shift_down", "lean", "expert", "router", "keep_on", "keep_between_runs",
    ],
    "CoLoGenSaveExperts": ["experts", "name"],
    "CoLoGenRouteMap": ["model", "conditioning", "latent"],
}  # fmt: skip


def test_ids_and_inputs_stay():
    from cologen.nodes import NODES

    schemas = [cls.define_schema() for cls in NODES]
    found = {schema.node_id: [item.id for item in schema.inputs] for schema in schemas}
    assert found == INPUTS
    assert all(schema.search_aliases for schema in schemas)


@pytest.mark.parametrize(
    "height, width, longest, expected",
    [
        (1023, 777, 0, (1024, 784)),
        (512, 512, 0, (512, 512)),
        (1, 1, 0, (16, 16)),
        (1000, 2000, 512, (256, 512)),
        (64, 64, 128, (64, 64)),
        (3000, 20, 512, (512, 16)),
    ],
)
def test_a_source_of_any_size_fits_the_token_grid(height, width, longest, expected):
    from cologen.nodes.source import fit

    image = torch.rand(2, height, width, 4)
    found = fit(image, longest)
    assert found.shape == (2, *expected, 3)
    assert 0 <= found.min() and found.max() <= 1
    if expected == (height, width):
        assert torch.equal(found, image[..., :3])
