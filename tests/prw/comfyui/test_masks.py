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
