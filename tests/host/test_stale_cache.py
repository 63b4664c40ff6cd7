"""A picture never comes from another run's keys and values: each thing they depend on is changed, one at a time."""

import pytest
import torch
from sampling import conditioning, sample
from tiny import host_model, latent, source, tiny_bank

pytestmark = pytest.mark.usefixtures("comfy")

FIRST = dict(task="control", seed=3)
SOURCES = {
    "pixels": dict(seed=4),
    "a single pixel": dict(latent_=latent(seed=3).index_put((torch.tensor([0]),) * 4, torch.tensor(9.0))),
    "size": dict(height=6, width=6),
    "batch": dict(latent_=latent(2, seed=3)),
    "task": dict(task="ground"),
    "router": dict(router="inpaint"),
    "forced expert": dict(expert="ground"),
    "lean": dict(lean=-1.0),
    "expert strength": dict(strength=0.5),
    "position": dict(position="shifted"),
    "shift": dict(position="shifted", shift=(1.0, 0.0)),
    "source strength": dict(source_strength=0.4),
    "window": dict(end=0.2),
    "region": dict(region=torch.tensor([[1.0, 0.2], [0.0, 1.0]])),
    "placement": dict(placement="cpu"),
}


def fresh(flux, bank=None, lora=0.0):
    from cologen.prw.comfyui.patch import apply_bank

    patched = apply_bank(host_model(flux), bank or tiny_bank(flux))
    return with_lora(patched, lora) if lora else patched


def with_lora(model, strength):
    clone = model.clone()
    delta = 0.05 * torch.ones(768, 256)
    clone.add_patches({"diffusion_model.double_blocks.1.img_attn.qkv.weight": ("diff", (delta,))}, strength)
    return clone


def run(model, keep, prompt=4, guidance=3.5, override=None, batch=2, size=(8, 8), noise=7, **knobs):
    from cologen.prw.comfyui.conditioning import add_source

    positive = add_source(conditioning(prompt, guidance=guidance), source(keep=keep, **{**FIRST, **knobs}))
    options = model.model_options["transformer_options"]
    options.pop("optimized_attention_override", None)
    if override:
        options["optimized_attention_override"] = override
    return sample(model, positive, batch=batch, size=size, steps=2, seed=noise)


def halve(func, q, k, v, *args, **kwargs):
    return func(q, k, v * 0.5, *args, **kwargs)


CALLS = {
    "pooled text": dict(prompt=6),
    "guidance": dict(guidance=1.5),
    "attention": dict(override=halve),
    "target batch": dict(batch=1),
    "target size": dict(size=(12, 8)),
}


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("what", [*SOURCES, *CALLS])
def test_a_changed_input_gives_what_a_fresh_process_gives(flux, what, keep):
    change = {**SOURCES, **CALLS}[what]
    used = fresh(flux)
    first = run(used, keep)
    changed = run(used, keep, **change)
    assert torch.equal(changed, run(fresh(flux), keep, **change))
    assert torch.equal(run(used, keep), first)
    if what not in ("target batch", "target size", "placement"):
        assert not torch.equal(changed, first)


@pytest.mark.parametrize("keep", [False, True])
def test_a_changed_lora_gives_what_a_fresh_process_gives(flux, keep):
    used = fresh(flux)
    first = run(used, keep)
    for strength in (1.0, 0.3):
        found = run(with_lora(used, strength), keep)
        assert torch.allclose(found, run(fresh(flux, lora=strength), keep), atol=1e-5)
        assert not torch.allclose(found, first, atol=1e-3)
    assert torch.allclose(run(used, keep), first, atol=1e-5)


@pytest.mark.parametrize("keep", [False, True])
@pytest.mark.parametrize("part", ["experts.ground.double_blocks.0.v.up", "routers.control.double_blocks.0.weight"])
def test_changed_experts_give_what_a_fresh_process_gives(flux, keep, part):
    bank, other = tiny_bank(flux), tiny_bank(flux)
    used = fresh(flux, bank)
    first = run(used, keep, expert="ground" if "experts" in part else "")
    for tensors in (bank.tensors, other.tensors):
        tensors[part].neg_()
    changed = run(used, keep, expert="ground" if "experts" in part else "")
    assert torch.equal(changed, run(fresh(flux, other), keep, expert="ground" if "experts" in part else ""))
    assert not torch.equal(changed, first)


def test_a_kept_source_runs_once_for_two_seeds(flux):
    used, calls = fresh(flux), []
    hook = used.model.diffusion_model.double_blocks[0].img_attn.qkv.register_forward_hook(lambda *a: calls.append(1))
    first = run(used, True)
    assert len(calls) == 2 + 1
    other = run(used, True, noise=8)
    assert torch.equal(run(used, True), first) and not torch.equal(other, first)
    assert len(calls) == 3 * 2 + 1
    assert torch.equal(run(used, True, size=(12, 8)), run(fresh(flux), True, size=(12, 8)))
    calls.clear()
    for size in ((8, 8), (12, 8)):  # two samplers in one graph both find theirs
        run(used, True, size=size)
    hook.remove()
    assert len(calls) == 2 * 2


def test_kept_sources_are_forgotten_after_some_runs_without_them(flux):
    from cologen.prw.comfyui.patch import find_attachment
    from cologen.prw.kv_cache import KEPT_RUNS

    used = fresh(flux)
    run(used, True)
    cache = find_attachment(used).cache
    (kept,) = cache.kept.values()
    assert not cache.entries and all(k.device.type == "cpu" for k, _ in kept.sample.kv.values())
    find_attachment(used).cleanup()  # the host cleans up every clone
    for _ in range(KEPT_RUNS):
        assert len(cache.kept) == 1
        run(used, False)  # the same source, keeping switched off
    assert not cache.kept


def test_a_source_that_cannot_be_kept_does_not_cost_the_picture(flux, monkeypatch, caplog):
    import cologen.prw.kv_cache as kv

    def no_memory(x):
        raise MemoryError("no room")

    used = fresh(flux)
    monkeypatch.setattr(kv, "to_cpu", no_memory)
    assert torch.equal(run(used, True), run(fresh(flux), False))
    assert "could not keep the source" in caplog.text


def test_object_patches_and_injections_give_what_a_fresh_process_gives(flux):
    """Bypass LoRAs inject forwards: no weight and no patches_uuid changes."""
    import comfy.model_patcher

    def injected(model, strength):
        layer = model.model.diffusion_model.double_blocks[1].img_attn.qkv
        clone, original = model.clone(), layer.forward

        def inject(patcher):
            layer.forward = lambda x: original(x) + strength * x.mean(-1, keepdim=True)

        def eject(patcher):
            layer.forward = original

        clone.set_injections("bypass", [comfy.model_patcher.PatcherInjection(inject=inject, eject=eject)])
        return clone

    used = fresh(flux)
    found = [run(injected(used, strength), True) for strength in (1.0, 0.2)]
    assert torch.equal(found[1], run(injected(fresh(flux), 0.2), True))
    assert not torch.allclose(found[0], found[1], atol=1e-3)


def test_an_interrupted_run_leaves_nothing_behind(flux):
    from cologen.prw.comfyui.patch import find_attachment

    used = fresh(flux)
    wanted = run(used, False)

    def fail(*args, **kwargs):
        raise InterruptedError

    handle = used.model.diffusion_model.final_layer.register_forward_hook(fail)
    with pytest.raises(InterruptedError):
        run(used, False, seed=8)
    handle.remove()
    assert not find_attachment(used).cache.entries
    assert torch.equal(run(used, False), wanted)
