"""What other packs put in FLUX's place is named in a sentence, on FLUX.1 and FLUX.2."""

import pytest
import torch
from host_family import FAMILIES, HostFamily
from sampling import add_sources, apply_bank
from torch import nn

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture(scope="module", params=FAMILIES)
def family(request, comfy):
    return HostFamily(request.param)


def read(family, model):
    return family.sample(apply_bank(model, family.bank), add_sources(family.prompt(), family.source()), steps=1)


def test_positions_as_a_tuple_are_a_sentence(family):
    """As packs pass them that bring blocks of their own."""
    model = family.model.clone()
    model.set_model_attn1_patch(lambda q, k, v, pe, attn_mask, extra_options: {"pe": (pe, pe)})
    sentence = (
        "The positions in double_blocks.0 are a tuple, expected ComfyUI's own tensor: bypass the node that replaces"
    )
    with pytest.raises(ValueError, match=sentence):
        read(family, model)


class OldLayer(nn.Linear):
    """A layer of before the host passed more than its input."""

    def forward(self, x):
        return super().forward(x)


class NewCaller(nn.Module):
    """Calls a layer as newer hosts do."""

    def __init__(self, width, argument):
        super().__init__()
        self.layer, self.argument = OldLayer(width, width), argument

    def forward(self, x):
        return self.layer(x, **{self.argument: "gelu"})


@pytest.mark.parametrize("argument", ["input_act", "residual"])
def test_layers_older_than_the_host_are_named(family, argument):
    """As ComfyUI-GGUF's are on newer hosts."""
    model = family.model.clone()
    model.add_object_patch("diffusion_model.double_blocks.0.img_mlp", NewCaller(256, argument))
    with pytest.raises(
        RuntimeError, match=rf"passes {argument} to layers, which OldLayer.forward does not take, .*GGUF"
    ):
        read(family, model)
    model.add_object_patch("diffusion_model.double_blocks.0.img_mlp", NewCaller(256, "other"))
    with pytest.raises(TypeError, match="unexpected keyword argument 'other'"):
        read(family, model)


def test_positions_of_another_pack_are_doubted_once(family, caplog):
    from cologen.prw.comfyui.check_host import describe_foreign_positions

    class Positions(nn.Module):
        def __init__(self, own):
            super().__init__()
            self.own = own

        def forward(self, ids):
            return self.own(ids)

    flux, model = family.model.model.diffusion_model, family.model.clone()
    assert describe_foreign_positions(flux) == ""
    model.add_object_patch("diffusion_model.pe_embedder", Positions(flux.pe_embedder))
    assert torch.equal(read(family, model), read(family, family.model))
    assert len([one for one in caplog.records if "positions come from tests.host.test_other_packs" in one.message]) == 1
