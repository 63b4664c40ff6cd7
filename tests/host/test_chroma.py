"""Chroma in the real host: sources are read as in the paper's formula, with Chroma's modulation at timestep 0."""

import pytest
import torch
from cologen.prw.bank.importers import open_experts
from cologen.prw.base_model import Base, compute_probe
from naive import Naive, embed, linear, rms
from naive_easycontrol import NaiveEasyControl, over, random_file
from safetensors.torch import save_file
from sampling import add_sources, apply_bank, assert_close, conditioning, naive_source, sample
from tiny import latent, source, tiny_bank, tiny_flux
from tiny_chroma import CHROMA, chroma_model
from tiny_server import make_tiny_vae

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]


class NaiveChroma(Naive):
    """The naive formula with Chroma's modulation: a row of one small network for every shift, scale and gate."""

    def find_guidance(self, source, guidance):
        return guidance

    def vec(self, t, guidance, pooled):
        def waves(x, width):
            i = torch.arange(width // 2)
            angle = 1000 * x[:, None] * torch.exp(-i * torch.log(torch.tensor(10000.0)) / (width // 2))
            return torch.cat([angle.cos(), angle.sin()], -1)

        name, rows = "distilled_guidance_layer", waves(torch.arange(344), 32)
        x = torch.stack([torch.cat([waves(t, 16), waves(guidance, 16), row.expand(len(t), -1)], -1) for row in rows], 1)
        x = linear(self.w, f"{name}.in_proj", x)
        for i in range(CHROMA["n_layers"]):
            x = x + embed(self.w, f"{name}.layers.{i}", rms(x, self.w[f"{name}.norms.{i}.weight"]))
        return linear(self.w, f"{name}.out_proj", x)

    def modulate(self, name, vec, parts):
        kind, number, side = name.split(".")
        first = {"modulation": 0, "img_mod": 3 * self.single, "txt_mod": 3 * self.single + 6 * self.depth}[side]
        first += parts * int(number)
        return vec[:, first : first + parts].split(1, 1)

    def modulate_last(self, vec):
        return vec[:, -2:-1], vec[:, -1:]


@pytest.fixture(scope="module")
def model(comfy):
    return chroma_model()


@pytest.fixture(scope="module")
def chroma(model):
    return model.model.diffusion_model


@pytest.fixture(scope="module")
def bank(chroma):
    return tiny_bank(chroma)


class NaiveLent(NaiveChroma, NaiveEasyControl):
    """EasyControl's own design with Chroma in FLUX.1's place."""


def expected(model, chroma, bank, *sources, negative=(), positive=None, formula=NaiveChroma, **steps):
    """The same sampling with the naive formula in Chroma's place."""
    import comfy.patcher_extension

    weights = {key.replace("_norm.weight", "_norm.scale"): value for key, value in chroma.state_dict().items()}
    naive = formula(weights)
    by_text = {float(conditioning(seed)[0][0][0, 0, 0]): found for seed, found in ((4, sources), (5, negative))}

    def forward(executor, x, t, context, guidance, control=None, transformer_options=None, **_):
        chunks = len(transformer_options["cond_or_uncond"])
        parts = zip(*(tensor.chunk(chunks) for tensor in (x, t, context, guidance)))
        return torch.cat(
            [naive(x, t, text, None, g, by_text[float(text[0, 0, 0])], bank) for x, t, text, g in parts]
        ).to(x)

    clone = model.clone()
    clone.add_wrapper_with_key(comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL, "naive", forward)
    return sample(clone, positive or conditioning(), **steps)


def positions(number, rows=4, columns=4):
    """Those of a reference: its number on the first axis."""
    return torch.tensor([[number, i, j] for i in range(rows) for j in range(columns)])


def test_the_naive_formula_is_the_hosts(model, chroma):
    assert_close(sample(model, conditioning()), expected(model, chroma, None))


@pytest.mark.parametrize("task", ["control", "inpaint"])
def test_a_source_with_experts_is_the_naive_formula(model, chroma, bank, task):
    found = sample(apply_bank(model, bank), add_sources(conditioning(), source(task)))
    assert_close(found, expected(model, chroma, bank, naive_source(task)))
    assert (found - sample(model, conditioning())).abs().max() > 0.01


def test_a_shifted_source_is_the_naive_formula(model, chroma, bank):
    found = sample(apply_bank(model, bank), add_sources(conditioning(), source(position="shifted")))
    beside = positions(0) + torch.tensor([0, 0, 4])
    assert_close(found, expected(model, chroma, bank, naive_source(positions=beside)))


def test_a_source_without_a_bank_is_the_naive_formula(model, chroma):
    found = sample(apply_bank(model, None), add_sources(conditioning(), source(height=6, width=10)))
    seen = dict(latent=latent(1, 6, 10, 3), positions=positions(1, 3, 5))
    assert_close(found, expected(model, chroma, None, seen))
    assert (found - sample(model, conditioning())).abs().max() > 0.01


def test_both_sides_of_cfg_read_their_own(model, chroma, bank):
    positive, negative = (
        add_sources(conditioning(), source()),
        add_sources(conditioning(5), source("inpaint", seed=9)),
    )
    steps = dict(cfg=3.0, batch=2)
    found = sample(apply_bank(model, bank), positive, negative, **steps)
    sides = dict(negative=[naive_source("inpaint", 9)])
    assert_close(found, expected(model, chroma, bank, naive_source(), **sides, **steps), 5e-4)
    plain = sample(apply_bank(model, bank), positive, **steps)  # a prompt to avoid that reads nothing
    assert_close(plain, expected(model, chroma, bank, naive_source(), **steps), 5e-4)


def test_an_easycontrol_file_lent_to_it_is_its_own_design_on_chroma(model, chroma, tmp_path):
    save_file(random_file(5), tmp_path / "canny.safetensors")
    with pytest.raises(ValueError, match="The model is a Chroma, the bank was made for FLUX.1"):
        apply_bank(model, open_experts(tmp_path / "canny.safetensors"))
    lent = open_experts(tmp_path / "canny.safetensors", family="Chroma")
    seen = dict(latent=latent(seed=3), positions=over(4, 4, 4, 4), file=random_file(5), weight=1.0)
    found = sample(apply_bank(model, lent), add_sources(conditioning(), source()), cfg=3.0)
    assert_close(found, expected(model, chroma, lent, seen, formula=NaiveLent, cfg=3.0), 5e-4)
    assert (found - sample(model, conditioning(), cfg=3.0)).abs().max() > 0.01


@pytest.mark.parametrize("options", [{}, {"guidance": 1.5}])
def test_a_source_has_the_pictures_guidance(model, chroma, bank, options):
    prompt = [[conditioning()[0][0], options]]  # text alone, as Chroma's encoder gives it
    found = sample(apply_bank(model, bank), add_sources(prompt, source()))
    assert_close(found, expected(model, chroma, bank, naive_source(), positive=prompt))


def test_cached_is_uncached(model, bank):
    from cologen.prw.comfyui.patch import find_attachment

    cached, uncached = apply_bank(model, bank), apply_bank(model, bank)
    find_attachment(uncached).cached = False
    positive = add_sources(conditioning(), source(), source("inpaint", seed=9))
    calls = []
    hook = model.model.diffusion_model.distilled_guidance_layer.register_forward_hook(lambda *a: calls.append(1))
    found = sample(cached, positive, steps=5)
    hook.remove()
    assert len(calls) == 5 + 2
    assert torch.equal(found, sample(uncached, positive, steps=5))


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_picture_without_a_source_is_the_hosts_own(model, bank, cfg):
    plain = sample(model, conditioning(), cfg=cfg)
    for patched in (apply_bank(model, bank), apply_bank(model, None)):
        assert torch.equal(sample(patched, conditioning(), cfg=cfg), plain)
        sample(patched, add_sources(conditioning(), source()), cfg=cfg)
        assert torch.equal(sample(patched, conditioning(), cfg=cfg), plain)
    assert torch.equal(sample(model, conditioning(), cfg=cfg), plain)


def test_strength_0_is_no_source(model, bank):
    off = add_sources(conditioning(), source(source_strength=0.0))
    assert torch.equal(sample(apply_bank(model, bank), off), sample(model, conditioning()))


def test_base_and_probe(model, chroma):
    base = Base.of(chroma)
    assert (base.family, base.guidance, base.in_channels) == ("chroma", True, 64)
    assert compute_probe(chroma) == compute_probe(chroma_model().model.diffusion_model)
    other = Base.of(chroma).with_probe(chroma_model(1).model.diffusion_model)
    assert "other weights" in base.with_probe(chroma).describe_difference(other)


def test_routes_of_a_source_are_shown(model, bank):
    from cologen.prw.comfyui.routes import compute_routes

    positive = add_sources(conditioning(), source())
    (title, experts, routes, _), *_ = compute_routes(apply_bank(model, bank), positive, latent())
    assert title == "control, source 1" and len(routes) == 4 and experts


def test_a_bank_of_flux_1_is_refused_in_a_sentence(model):
    with pytest.raises(ValueError, match="The model is a Chroma, the bank was made for FLUX.1"):
        apply_bank(model, tiny_bank(tiny_flux()))


def test_chroma_radiance_is_refused_in_a_sentence():
    import comfy.ldm.chroma_radiance.model
    from cologen.prw.comfyui.check_host import check_flux

    radiance = comfy.ldm.chroma_radiance.model.ChromaRadiance
    with pytest.raises(ValueError, match="is a ChromaRadiance, expected ComfyUI's own FLUX or Chroma"):
        check_flux(radiance.__new__(radiance))


def test_a_replaced_forward_is_refused_in_a_sentence(model):
    clone = chroma_model()
    clone.model.diffusion_model.forward_orig = lambda *args, **kwargs: None
    with pytest.raises(ValueError, match="FLUX's forward has been replaced by .*test_chroma"):
        apply_bank(clone, None)


@pytest.mark.parametrize("encoders", [["t5"], [], ["clip", "t5"]])
def test_the_loader_takes_one_text_encoder(model, tmp_path, monkeypatch, encoders):
    import comfy.sd
    import folder_paths
    from cologen.nodes import CoLoGenLoadFlux

    asked = []
    save_file(make_tiny_vae(), tmp_path / "ae.safetensors")
    for name in ("chroma", "t5", "clip"):
        save_file({}, tmp_path / f"{name}.safetensors")
    for folder in ("diffusion_models", "vae", "text_encoders"):
        monkeypatch.setitem(folder_paths.folder_names_and_paths, folder, ([str(tmp_path)], {".safetensors"}))
    monkeypatch.setattr(comfy.sd, "load_diffusion_model", lambda *args, **given: model)
    monkeypatch.setattr(comfy.sd, "load_clip", lambda **given: asked.append(given["clip_type"]) or "clip")
    names = [f"{name}.safetensors" for name in encoders] + ["none"] * (2 - len(encoders))

    def load():
        return CoLoGenLoadFlux.execute("chroma.safetensors", "default", *names, "ae.safetensors").args

    if len(encoders) == 2:
        with pytest.raises(ValueError, match="The model is a Chroma with two text encoders, expected one .T5-XXL.:"):
            load()
    else:
        assert load()[:2] == (model, "clip" if encoders else None)
        assert asked == [comfy.sd.CLIPType.CHROMA] * len(encoders)


def test_training_is_refused_in_a_sentence(model):
    from cologen.training.comfyui.training_host import TrainingHost

    with pytest.raises(ValueError, match="The model is a Chroma, expected FLUX.1 or FLUX.2: Chroma reads"):
        TrainingHost(model)


def test_a_file_outside_the_host_is_refused_in_a_sentence(chroma, tmp_path):
    from cologen.prw.flux.checkpoint import load_flux

    save_file(dict(chroma.state_dict()), tmp_path / "chroma.safetensors")
    with pytest.raises(ValueError, match="is a Chroma, expected FLUX.1 or FLUX.2: load Chroma in ComfyUI"):
        load_flux(tmp_path / "chroma.safetensors")
