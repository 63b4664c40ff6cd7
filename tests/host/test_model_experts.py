"""Experts that are whole models in the real host: pictures are the naive formula's, and never those of another run's keys."""

from functools import partial

import pytest
import torch
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.source import Routing, Source
from naive_template import NaiveReader, NaiveTemplate
from sampling import add_sources, apply_bank, assert_close, naive_model
from tiny import latent, tiny_bank
from tiny_flux2 import TEXT_WIDTH, tiny_flux2
from tiny_template import save_template

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]

CONTROL, EDIT = "Template-KleinBase4B-ControlNet", "Template-KleinBase4B-Edit"


@pytest.fixture(scope="module")
def flux(comfy):
    return tiny_flux2()


@pytest.fixture(scope="module")
def templates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("templates")
    files = [save_template(folder, name, seed) for seed, name in enumerate((CONTROL, EDIT), 50)]
    return {path.parent.name: (open_experts(path), weights) for path, weights in files}


@pytest.fixture(scope="module")
def control(templates):
    return templates[CONTROL][0]


def load(flux, **options):
    from cologen.training.comfyui.enter_host import load_model

    return load_model(flux.state_dict(), torch.float32, **options)


@pytest.fixture(scope="module")
def model(flux):
    return load(flux)


def prompt(seed=4, tokens=5):
    return [[torch.randn(1, tokens, TEXT_WIDTH, generator=torch.Generator().manual_seed(seed)), {}]]


def picture(seed=3, height=3, width=5):
    return latent(1, height, width, seed, 128)


def source(seed=3, height=3, width=5, task="control", expert="", position="auto", **knobs):
    return Source(picture(seed, height, width), Routing(task=task, expert=expert, position=position), **knobs)


def sample(model, positive, negative=None, cfg=1.0, batch=1, size=(4, 6), steps=2):
    import comfy.sample
    import comfy.samplers

    empty = torch.zeros(batch, 128, *size)
    noise, sampler = comfy.sample.prepare_noise(empty, 7), comfy.samplers.sampler_object("euler")
    sigmas, rest = torch.linspace(1, 0, steps + 1), dict(disable_pbar=True, seed=7)
    with torch.inference_mode():
        return comfy.sample.sample_custom(
            model, noise, cfg, sampler, sigmas, positive, negative or prompt(5), empty, **rest
        )


class ReaderWithTemplates:
    """The naive base; a source is a template's weights, its latents, its prompt (None: the base's) and a log weight."""

    def __init__(self, weights):
        self.reader = NaiveReader(weights)

    def __call__(self, x, t, context, pooled, guidance, sources, bank, control=None):
        kept = [
            (NaiveTemplate(weights)(context if own is None else own, *latents), bias)
            for weights, latents, own, bias in sources
        ]
        return self.reader(kept, x, t, context)


naive = partial(naive_model, bank=None, formula=ReaderWithTemplates, make_conditioning=prompt)


@pytest.mark.parametrize("batch, size", [(1, (4, 6)), (2, (3, 5))])
def test_a_picture_is_the_naive_formula_sampled_by_the_host(model, flux, templates, control, batch, size):
    how = dict(batch=batch, size=size)
    found = sample(apply_bank(model, control), add_sources(prompt(), source()), **how)
    sources = {4: [(templates[CONTROL][1], [picture()], None, 0.0)]}
    assert_close(found, sample(naive(model, flux.state_dict(), sources=sources), prompt(), **how))
    assert (found - sample(model, prompt(), **how)).abs().max() > 0.01


def test_both_prompts_of_cfg_are_the_templates_as_well(model, flux, templates, control):
    positive, negative = (add_sources(prompt(seed), source()) for seed in (4, 5))
    found = sample(apply_bank(model, control), positive, negative, cfg=4.0)
    one = (templates[CONTROL][1], [picture()], None, 0.0)
    expected = naive(model, flux.state_dict(), sources={4: [one], 5: [one]})
    assert_close(found, sample(expected, prompt(), prompt(5), cfg=4.0))


def test_two_templates_with_prompts_of_their_own(model, flux, templates):
    """One of them has two pictures; the other a prompt of its own, and half the strength."""
    (own,) = prompt(9, 6)
    positive = add_sources(
        prompt(),
        source(task="edit"),
        source(seed=8, expert=CONTROL, prompt=own[0], strength=0.5),
        source(seed=9, height=2, task="edit"),
    )
    found = sample(apply_bank(model, merge(bank for bank, _ in templates.values())), positive)
    edit = (templates[EDIT][1], [picture(), picture(9, 2)], None, 0.0)
    other = (templates[CONTROL][1], [picture(8)], own[0], torch.tensor(0.5).log())
    assert_close(found, sample(naive(model, flux.state_dict(), sources={4: [edit, other]}), prompt()))


def test_without_a_source_pictures_are_bit_equal(model, control):
    plain = sample(model, prompt(), cfg=2.0)
    assert torch.equal(sample(apply_bank(model, control), prompt(), cfg=2.0), plain)
    off = [add_sources(prompt(seed), source(strength=0.0)) for seed in (4, 5)]  # the host batches equal sources
    assert torch.equal(sample(apply_bank(model, control), *off, cfg=2.0), plain)


@pytest.mark.parametrize("placement", ["gpu", "cpu", "fp8"])
def test_cached_is_uncached(model, control, placement):
    used, uncached = apply_bank(model, control), apply_bank(model, control)
    from cologen.prw.comfyui.patch import require_attachment

    require_attachment(uncached).cached = False
    given = [add_sources(prompt(seed), source(placement=placement, end=0.6)) for seed in (4, 5)]
    assert torch.equal(sample(used, *given, cfg=3.0, steps=3), sample(uncached, *given, cfg=3.0, steps=3))


def halve(func, q, k, v, *args, **kwargs):
    return func(q, k, v * 0.5, *args, **kwargs)


def run(model, keep, text=4, own=None, size=(4, 6), override=None, **knobs):
    own = {} if own is None else dict(prompt=prompt(own)[0][0])
    model = model.clone()
    if override:
        model.model_options["transformer_options"]["optimized_attention_override"] = override
    return sample(model, add_sources(prompt(text), source(keep=keep, **own, **knobs)), size=size)


CHANGES = {
    "picture": dict(seed=12),
    "prompt": dict(text=6),
    "own prompt": dict(own=6),
    "template": dict(expert=EDIT),
    "size": dict(size=(6, 4)),
    "source's size": dict(height=4, width=4),
    "strength": dict(strength=0.4),
    "region": dict(region=torch.tensor([[1.0, 0.2], [0.0, 1.0]])),
    "position": dict(position="aligned"),
    "attention": dict(override=halve),
}


@pytest.mark.parametrize("what, keep", [*((what, True) for what in CHANGES), ("picture", False), ("prompt", False)])
def test_a_changed_input_gives_what_a_fresh_process_gives(model, templates, what, keep):
    both = merge(bank for bank, _ in templates.values())
    used, change = apply_bank(model, both), CHANGES[what]
    first = run(used, keep)
    changed = run(used, keep, **change)
    assert torch.equal(changed, run(apply_bank(model, both), keep, **change))
    assert torch.equal(run(used, keep), first)
    if what != "size":
        assert not torch.allclose(changed, first, atol=1e-3)


def count_passes(attachment, monkeypatch):
    calls, build = [], attachment.bank.model
    monkeypatch.setattr(attachment.bank, "model", lambda name, base: calls.append(name) or build(name, base))
    return calls


def test_a_kept_template_runs_once_for_new_prompts_noise_and_sizes(model, flux, tmp_path, monkeypatch):
    from cologen.prw.comfyui.patch import require_attachment

    used = apply_bank(model, open_experts(save_template(tmp_path)[0]))
    run(used, True, own=9)
    calls = count_passes(require_attachment(used), monkeypatch)
    monkeypatch.setattr(require_attachment(used), "estimate_kv_bytes", lambda *_: 0)
    run(used, True, own=9, text=6)
    run(used, True, own=9, size=(2, 7))
    assert not calls
    run(used, True, own=8)
    assert calls == [CONTROL]


def test_memory_is_asked_for_both_streams_and_one_block(model, control):
    import comfy.model_management
    from cologen.prw.comfyui.patch import require_attachment

    attachment = require_attachment(apply_bank(model, control))
    given = add_sources(prompt(), source())
    conds = {"positive": [{**given[0][1], "cross_attn": torch.zeros(1, 512, TEXT_WIDTH)}]}
    width = comfy.model_management.dtype_size(model.model.get_dtype_inference())
    blocks = model.model.diffusion_model.double_blocks
    largest = max(sum(p.numel() for p in block.parameters()) for block in blocks) * 4
    before = model.model.diffusion_model
    assert largest > sum(p.numel() for p in before.img_in.parameters())
    expected = 2 * (512 + 15) * 256 * 5 * width
    assert (
        expected + largest <= attachment.estimate_kv_bytes(model.model, (1, 128, 4, 6), conds) <= expected + 2 * largest
    )


def test_a_user_can_cancel_within_a_pass(model, control):
    import comfy.model_management

    def press_cancel(func, *args, **kwargs):
        comfy.model_management.interrupt_current_processing()
        return func(*args, **kwargs)

    used = apply_bank(model, control)
    try:
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            run(used, False, override=press_cancel)
    finally:
        comfy.model_management.interrupt_current_processing(False)
    assert torch.isfinite(run(used, False)).all()


def test_a_route_map_says_who_reads(model, flux, control):
    from cologen.prw.comfyui.routes import compute_routes

    patched = apply_bank(model, merge([tiny_bank(flux), control]))
    given = add_sources(prompt(), source(), source(expert=CONTROL))
    routed, read = compute_routes(patched, given, torch.zeros(1, 128, 4, 6))
    assert routed[1] == ("inpaint", "ground", "control") and len(routed[2]) == 5
    assert read == (f"control, source 2: read by the whole model {CONTROL}, which has no router", (), {}, {})


def test_an_attention_map_counts_the_pictures_keys_and_not_the_prompt_s(model, control):
    """The last keys of a block are the picture's, those before it the prompt's, which all of the model's pictures share."""
    from cologen.prw.comfyui.source_attention import record_attention
    from cologen.prw.flux.math import rotate

    patched, found = apply_bank(model, control), []

    def watch(q, k, v, pe=None, attn_mask=None, extra_options=None):
        rows = slice(extra_options["img_slice"][0], None)
        scores = rotate(q, pe)[:, :, rows] @ rotate(k, pe).mT / q.shape[-1] ** 0.5
        found.append(scores.softmax(-1)[..., -3 * 5 :].sum(-1).mean(1))
        return {}

    patched.set_model_attn1_patch(watch)
    drawn = {"samples": latent(1, 4, 6, 8, 128)}
    with torch.inference_mode():
        (one,) = record_attention(patched, add_sources(prompt(), source()), drawn, 1)
    assert len(found) == 5 and one.shares.shape == (1, 4, 6)
    assert (one.shares.flatten(1) - torch.stack(found).mean(0)).abs().max() < 1e-5 and one.shares.min() > 0


def test_a_base_of_another_shape_is_a_sentence(control):
    with pytest.raises(ValueError, match="^The model has hidden_size 128, the bank was made for 256: load the FLUX"):
        apply_bank(load(tiny_flux2(hidden_size=128, num_heads=1)), control)


@pytest.fixture
def folders(comfy, tmp_path, monkeypatch):
    """A template in each folder where one may lie, and another model in each."""
    import folder_paths

    for kind in ("loras", "diffusion_models", "cologen"):
        save_template(tmp_path / kind, f"{kind}-template", seed=len(kind))
        save_template(tmp_path / kind, "other")
        (tmp_path / kind / "other/model.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}      ")
        entry = ([str(tmp_path / kind)], {".safetensors"})
        monkeypatch.setitem(folder_paths.folder_names_and_paths, kind, entry)
    folder_paths.filename_list_cache.clear()
    yield tmp_path
    folder_paths.filename_list_cache.clear()


NAMES = (
    ("loras/loras-template/model.safetensors", "loras-template/model.safetensors"),
    ("cologen-template/model.safetensors", "cologen/cologen-template/model.safetensors"),
    *[("diffusion_models/diffusion_models-template/model.safetensors",) * 2],
)
"""Of templates in the list of Load CoLoGen Experts and in that of Import Experts."""


def test_templates_are_found_wherever_they_lie(folders):
    from cologen.training.comfyui.folders import list_banks, list_importable

    banks, importable = list_banks(), list_importable()
    for loaded, imported in NAMES:
        assert loaded in banks and imported in importable
    assert [name for name in banks if "other" in name] == ["other/model.safetensors"]  # what lies in models/cologen
    assert [name for name in importable if "other" in name] == ["other/model.safetensors"]  # what lies in models/loras


@pytest.mark.parametrize("loaded, imported", NAMES)
def test_load_and_import_give_the_same_expert(folders, loaded, imported):
    from cologen.nodes.experts import CoLoGenLoadExperts
    from cologen.nodes.library import CoLoGenImportExperts

    first = CoLoGenLoadExperts.execute(loaded)[0]
    second = CoLoGenImportExperts.execute(imported, "auto", "")[0]
    assert list(first.info.models) == [loaded.split("/")[-2]] and first.info == second.info
    assert CoLoGenLoadExperts.fingerprint_inputs(loaded) == CoLoGenImportExperts.fingerprint_inputs(imported)


def test_chained_imports_are_one_bank_and_saving_is_a_sentence(folders):
    from cologen.nodes.experts import CoLoGenSaveExperts
    from cologen.nodes.library import CoLoGenImportExperts, CoLoGenInspectExperts

    first = CoLoGenImportExperts.execute(NAMES[0][1], "auto", "first")[0]
    both = CoLoGenImportExperts.execute(NAMES[1][1], "auto", "second", first)[0]
    assert list(both.info.models) == ["first", "second"]
    assert "2 whole models" in CoLoGenInspectExperts.execute(both)[0]
    with pytest.raises(ValueError, match="hold a whole model .first, second., expected low-rank experts alone"):
        CoLoGenSaveExperts.execute(both, "mine")
    assert not (folders / "cologen/mine.safetensors").exists()


def test_training_on_a_template_is_a_sentence(model, control):
    from cologen.training.comfyui.run import train_curriculum

    with pytest.raises(ValueError, match=f"hold a whole model .{CONTROL}., expected low-rank experts alone"):
        train_curriculum(model, None, None, None, control)


KNOBS = dict(
    task="control", strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=1024, position="auto", shift_right=1.0,
    shift_down=0.0, lean=0.0, expert="", router="", keep_on="gpu", keep_between_runs=False,
)  # fmt: skip


def test_the_source_node_takes_a_prompt_for_the_template(model, control):
    import comfy.sd
    from cologen.nodes.source import CoLoGenSource
    from tiny_server import make_tiny_vae

    vae = comfy.sd.VAE(sd=make_tiny_vae(128), metadata={"tae_latent_channels": 128})
    image = torch.rand(1, 48, 80, 3, generator=torch.Generator().manual_seed(0))
    given = dict(conditioning=prompt(), vae=vae, image=image, experts=control, **KNOBS)
    own, open_, same = (
        CoLoGenSource.execute(**given, prompt=text)[0] for text in (prompt(9), None, [[padded(prompt()), {}]])
    )
    patched = apply_bank(model, control)
    assert torch.equal(sample(patched, same), sample(patched, open_))
    assert (sample(patched, own) - sample(patched, open_)).abs().max() > 0.01
    with pytest.raises(ValueError, match="The prompt holds 2 entries, expected one: connect what a text encode node"):
        CoLoGenSource.execute(**given, prompt=prompt() * 2)


def padded(conditioning):
    """As the host fills FLUX.2's prompts up; Qwen3's have that length already."""
    return torch.nn.functional.pad(conditioning[0][0], (0, 0, 512 - conditioning[0][0].shape[1], 0))
