"""Masks of the host as regions of a source."""

import pytest
import torch


@pytest.mark.parametrize(
    "region, sentence", [(torch.zeros(1, 64, 64), "The region is empty"), (torch.ones(2, 8, 8), "holds 2 masks")]
)
def test_regions_that_say_nothing_are_a_sentence(region, sentence):
    from cologen.prw.comfyui.masks import check_region

    with pytest.raises(ValueError, match=sentence):
        check_region(region)


@pytest.mark.parametrize("shape", [(0, 0), (1, 0, 0), (0, 8, 8), (1, 1, 8, 0), (8,)])
def test_masks_of_nothing_are_a_sentence(shape):
    from cologen.prw.comfyui.masks import check_region, reshape_mask

    for use in (check_region, lambda mask: reshape_mask(mask, 1)):
        with pytest.raises(ValueError, match="The mask has shape .*, expected .batch, height, width.: connect another"):
            use(torch.ones(shape))
