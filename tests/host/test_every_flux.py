"""The kinds and formats of FLUX.1 that people run, in the real host: each reads a source as plain weights do."""

import sys
from importlib import util
from pathlib import Path

import pytest
import torch
from cologen.prw.comfyui.conditioning import add_source
from naive import Naive
from pack import HOST
from sampling import conditioning, naive_model, sample
from tiny import host_model, latent, source, tiny_bank, tiny_flux
from torch import nn

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

NAMES = ("inpaint", "ground", "control")


def woven(model, bank, *sources, positive=None, **how):
    from cologen.prw.comfyui.patch import apply_bank

    positive = conditioning() if positive is None else positive
    for one in sources or [source()]:
        positive = add_source(positive, one)
    return sample(apply_bank(model, bank), positive, **how)


def naive_source(**rest):
    return {"latent": latent(seed=3), "stage": "control", "names": NAMES, **rest}


def close(found, expected, tolerance=1e-4):
    assert (found - expected).abs().max() < tolerance * expected.abs().max()


def with_values(positive, **values):
    import node_helpers

    return node_helpers.conditioning_set_values(positive, values)


@pytest.mark.parametrize("guidance", [None, 3.5], ids=["schnell", "dev, Krea"])
def test_with_and_without_guidance(bank, guidance):
    kind = tiny_flux(guidance_embed=guidance is not None)
    model, steps = host_model(kind), dict(steps=4)
    found = woven(model, tiny_bank(kind), **steps)
    close(
        found,
        sample(naive_model(model, kind.state_dict(), tiny_bank(kind), {4: [naive_source()]}), conditioning(), **steps),
    )


def test_kontext_s_own_references_beside_a_source_and_several_of_them(flux, bank):
    model = host_model(flux)
    references = with_values(conditioning(), reference_latents=[latent(height=6, width=6, seed=12)])
    found = woven(model, bank, source(), source("ground", seed=9), positive=references)
    both = [naive_source(), dict(latent=latent(seed=9), stage="ground", names=NAMES[:2])]
    close(found, sample(naive_model(model, flux.state_dict(), bank, {4: both}), references))


def test_fill_gives_the_source_its_own_picture_and_an_empty_mask(bank):
    """384 channels: 64 of noise, 64 of the given picture, 256 of the mask."""
    fill = tiny_flux(in_channels=384, out_channels=64)
    model, bank = host_model(fill), tiny_bank(fill)
    given, mask = latent(seed=13), (torch.rand(1, 1, 64, 64, generator=torch.Generator().manual_seed(1)) > 0.5).float()
    wanted = with_values(conditioning(), concat_latent_image=given, concat_mask=mask)
    found = woven(model, bank, positive=wanted)
    zero = torch.full((1, 64, 8, 8), 0.1159)  # what becomes 0 on FLUX's scale
    seen = naive_source(latent=torch.cat([latent(seed=3), latent(seed=3), zero], 1))
    naive = naive_model(model, fill.state_dict(), bank, {4: [seen]})  # the host joins the picture's own channels
    close(found, sample(naive, wanted))


@pytest.mark.parametrize("kind, strength", [("multiply", 0.7), ("attn_bias", 0.5)])
def test_redux_by_the_host_s_own_nodes(flux, bank, kind, strength):
    """Its tokens lengthen the text; attn_bias brings a mask over text and picture that must reach our keys."""
    import comfy.sd
    from comfy.ldm.flux.redux import ReduxImageEncoder
    from nodes import StyleModelApply

    torch.manual_seed(0)
    style, seen = comfy.sd.StyleModel(ReduxImageEncoder(24, 32)), type("Seen", (), {})()
    for part in style.model.parameters():
        nn.init.normal_(part, std=0.2)
    seen.last_hidden_state = torch.randn(1, 6, 24)
    with torch.no_grad():
        (wanted,) = StyleModelApply().apply_stylemodel(conditioning(), style, seen, strength, kind)
    model = host_model(flux)
    found = woven(model, bank, positive=wanted)
    text, mask = wanted[0][0], None
    if kind == "attn_bias":  # text and picture look less at the style's six tokens
        mask = torch.zeros(11 + 16, 11 + 16)
        mask[:5, 5:11] = mask[11:, 5:11] = torch.tensor(strength).log()
    x, plain = _naive(flux, bank, text, mask), sample(model, wanted)
    close(found, x, 1e-3)
    assert (found - plain).abs().max() > 1e-2


def _naive(flux, bank, text, mask):
    """Sampled by the host with the naive formula in FLUX's place, for one prompt."""
    import comfy.patcher_extension

    naive = Naive(flux.state_dict())

    def forward(executor, x, t, context, y=None, guidance=None, *rest, **_):
        return naive(x.float(), t, context, y, guidance, [naive_source()], bank, extra_mask=mask)

    clone = host_model(flux).clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "naive", forward)
    return sample(clone, [[text, conditioning()[0][1]]])


def gguf_pack() -> Path | None:
    places = [HOST / "custom_nodes/ComfyUI-GGUF", HOST.parent / "extra/ComfyUI-GGUF"] if HOST else []
    return next((place for place in places if (place / "loader.py").is_file()), None)


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_0", "BF16"])
def test_gguf_with_its_own_pack(flux, bank, kind, tmp_path):
    gguf = pytest.importorskip("gguf")
    pack = gguf_pack()
    if pack is None:
        pytest.skip("ComfyUI-GGUF is not installed")
    spec = util.spec_from_file_location("gguf_pack", pack / "__init__.py", submodule_search_locations=[str(pack)])
    sys.modules["gguf_pack"] = module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    import comfy.sd
    from gguf_pack.loader import gguf_sd_loader
    from gguf_pack.nodes import GGUFModelPatcher
    from gguf_pack.ops import GGMLOps

    writer, meant = gguf.GGUFWriter(tmp_path / "flux.gguf", "flux"), {}
    for name, weight in flux.state_dict().items():
        wanted = getattr(gguf.GGMLQuantizationType, kind) if weight.ndim == 2 else gguf.GGMLQuantizationType.F32
        if wanted != gguf.GGMLQuantizationType.F32 and weight.shape[-1] % 32:
            wanted = gguf.GGMLQuantizationType.F32
        data = gguf.quants.quantize(weight.numpy(), wanted)
        writer.add_tensor(name, data, raw_dtype=wanted)
        meant[name] = torch.from_numpy(gguf.quants.dequantize(data, wanted)).reshape(weight.shape).float()
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    model = comfy.sd.load_diffusion_model_state_dict(
        gguf_sd_loader(str(tmp_path / "flux.gguf")),
        model_options={"custom_operations": GGMLOps(), "dtype": torch.float32},
    )
    model = GGUFModelPatcher.clone(model)
    naive = naive_model(host_model(flux), meant, bank, {4: [naive_source()]})
    close(woven(model, bank), sample(naive, conditioning()), 1e-3)


def test_a_bank_of_another_kind_of_flux_is_doubted_once(flux, bank, caplog):
    kind = tiny_flux(guidance_embed=False)
    woven(host_model(kind), bank, steps=4)
    assert len([record for record in caplog.records if "another kind" in record.message]) == 1


def test_turbo_schedules_of_four_and_eight_steps(flux, bank):
    model = host_model(flux)
    naive = naive_model(model, flux.state_dict(), bank, {4: [naive_source()]})
    for steps in (4, 8):
        close(woven(model, bank, steps=steps), sample(naive, conditioning(), steps=steps))


def test_a_flux_of_another_shape_is_refused(bank):
    shallower = tiny_flux(depth=1)
    with pytest.raises(ValueError, match="double_blocks 1, the bank was made for 2"):
        woven(host_model(shallower), bank)
