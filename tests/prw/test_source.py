"""What a source may be."""

import pytest
import torch


@pytest.mark.parametrize(
    "change, sentence",
    [
        (dict(latent=torch.zeros(1, 4, 8, 8)), "connect the VAE that belongs to your FLUX"),
        (dict(latent=torch.zeros(1, 16, 1, 8, 8)), "connect the VAE that belongs to your FLUX"),
        (dict(latent=torch.zeros(0, 16, 8, 8)), "expected a picture: connect one and its VAE"),
        (dict(latent=torch.full((1, 16, 8, 8), torch.nan)), "not finite"),
        (dict(region=torch.zeros(8)), "expected .height, width.: connect a mask"),
        (dict(region=torch.full((8, 8), -1.0)), "expected 0 to 1"),
        (dict(region=torch.full((8, 8), torch.nan)), "expected 0 to 1"),
        (dict(strength=torch.nan), "strength is nan, expected 0 to 100"),
        (dict(start=0.5, end=0.5), "let it end later than it starts"),
        (dict(placement="disk"), "placement is 'disk', expected one of"),
        (dict(routing=dict(strength=float("inf"))), "expert strength is inf"),
        (dict(routing=dict(shift=(float("nan"), 0.0))), "shift is nan"),
        (dict(routing=dict(lean=2.0)), "lean is 2.0, expected -1 to 1"),
        (dict(routing=dict(position="left")), "position is 'left', expected one of"),
    ],
)
def test_a_source_that_cannot_be_is_a_sentence(change, sentence):
    from cologen.prw.source import Routing, Source

    with pytest.raises(ValueError, match=sentence):
        fields = {"latent": torch.zeros(1, 16, 8, 8), **change}
        Source(**{**fields, "routing": Routing(**fields.get("routing", {}))})
