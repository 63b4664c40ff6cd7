"""Training on FLUX.2 by the one loop: gradients of the paper's equations, a memory estimate, pictures on the way."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.embedded_host import EmbeddedHost
from cologen.training.memory_estimate import estimate_memory
from cologen.training.validate import make_sample_sheet, sample_task, validate
from naive_flux2 import NaiveFlux2
from tiny_flux2 import tiny_flux2
from tiny_run import TinyEncoders, gradients, text_widths, tiny_trainer

KINDS = pytest.mark.parametrize("guided", [False, True], ids=["klein", "dev"])


def make_trainer(guided=False, **changes):
    host = EmbeddedHost(tiny_flux2(guidance_embed=guided), torch.float32)
    trainer = tiny_trainer(host, veteran=0.0, clip=0.0, **changes)
    trainer.make_router_noise = lambda batch: None
    return trainer


def naive_velocity(trainer, x, batch, bank):
    names = bank.info.routers[trainer.stage.name].experts
    guidance = torch.ones_like(batch.times) if trainer.host.flux.params.guidance_embed else None
    source = dict(latent=batch.source, stage=trainer.stage.name, names=names)
    naive = NaiveFlux2(trainer.host.flux.state_dict())
    return naive(x, batch.times, batch.context, None, guidance, sources=[source], bank=bank)


@KINDS
@pytest.mark.parametrize("checkpointing", [False, True])
def test_gradients_are_those_of_the_equations_written_out(guided, checkpointing):
    trainer = make_trainer(guided, stage=2, batch=3, checkpointing=checkpointing)
    (batch,) = trainer.draw_batches()
    t = batch.times.view(-1, 1, 1, 1)
    x = (1 - t) * batch.target + t * batch.noise  # FLUX.2's latents need no scale
    velocity = naive_velocity(trainer, x, batch, trainer.bank)
    loss = ((velocity - (batch.noise - batch.target)) ** 2).mean()
    expected = torch.autograd.grad(loss, list(trainer.trained.values()), allow_unused=True)
    found, step = gradients(trainer)
    assert step.task_loss == pytest.approx(loss.item(), rel=1e-5)
    largest = max(float(part.abs().max()) for part in expected if part is not None)
    for (name, gradient), part in zip(found.items(), expected):
        part = torch.zeros_like(gradient) if part is None else part
        assert torch.allclose(gradient, part, rtol=0, atol=1e-4 * largest), name
    for kind in ("experts.", "routers."):
        assert any(gradient.any() for name, gradient in found.items() if name.startswith(kind))


@KINDS
def test_validation_is_the_loss_of_the_same_equations(guided):
    trainer = make_trainer(guided, stage=0)
    found = validate(trainer)["inpaint"].loss
    from cologen.training.validate import TIMES, make_val_batch

    batch, losses = make_val_batch(trainer.datasets["inpaint"]), []
    for time in TIMES:
        batch = batch._replace(times=torch.full((len(batch.ids),), time))
        x = (1 - time) * batch.target + time * batch.noise
        velocity = naive_velocity(trainer, x, batch, trainer.exported_bank)
        losses.append(((velocity - (batch.noise - batch.target)) ** 2).mean())
    assert found == pytest.approx(torch.stack(losses).mean().item(), rel=1e-5)


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_sample_pictures_follow_flux_2_s_timesteps_and_guidance(cfg):
    from diffusers.pipelines.flux2.pipeline_flux2_klein import compute_empirical_mu

    trainer = make_trainer(stage=0, sample_steps=3)
    trainer.settings = replace(trainer.settings, sample_cfg=cfg)
    found, batch = sample_task(trainer, "inpaint", 2)
    power, x = torch.tensor(compute_empirical_mu(16, 3)).exp(), batch.noise
    times = [float(power / (power + 1 / u - 1)) for u in (1, 2 / 3, 1 / 3)] + [0.0]
    empty = trainer.empty_prompt[0].expand(len(x), -1, -1)
    for t, following in zip(times, times[1:]):
        at = batch._replace(times=torch.full((len(x),), t))
        told, untold = (
            naive_velocity(trainer, x, one, trainer.exported_bank) for one in (at, at._replace(context=empty))
        )
        x = (x + (following - t) * (untold + cfg * (told - untold))).detach()
    assert torch.allclose(found, x, atol=1e-4 * x.abs().max().item())
    sheet = make_sample_sheet(trainer, TinyEncoders(**text_widths(trainer.host)))
    assert sheet.shape[0] and sheet.dtype.name == "uint8"


def test_what_a_stage_takes_is_counted_on_flux_2_too():
    trainer = make_trainer(batch=2)
    found, flux = estimate_memory(trainer), trainer.host.flux
    assert found.base == {"float32": sum(4 * parameter.numel() for parameter in flux.parameters())}
    assert found.gradients == sum(4 * tensor.numel() for tensor in trainer.trained.values())
    tokens = 2 * (2 * 16 + 3)  # two samples: the picture's and the source's 4 x 4 tokens, and the text's
    assert found.activations % (tokens * flux.params.hidden_size * 4) == 0
