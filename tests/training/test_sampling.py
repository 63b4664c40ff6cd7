"""Everything that samples or counts routes outside ComfyUI, against Euler's steps on the attachment: sources of both times."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.bank.bank import Bank
from cologen.prw.config import SourceInfo
from cologen.prw.embedded_host import velocity
from cologen.prw.flux.inputs import EncodedPrompt, FluxInputs
from cologen.prw.flux.sampling import make_timesteps
from cologen.prw.source import Routing, Source
from cologen.training.coredi.sampling import FeatureSampler
from cologen.training.evaluation.image_generator import GenerationSettings, ImageGenerator
from cologen.training.from_scratch.evaluate import CFG, STEPS, answer_questions
from cologen.training.routing_stats import count_choices, measure_usage
from cologen.training.sampling import SamplingSettings, sample_latents
from cologen.training.validate import TIMES, make_val_batch, sample_task, validate
from tiny_features import tiny_feature_trainer
from tiny_run import tiny_curriculum, tiny_host, tiny_run, tiny_trainer

BANKS = [("zero", "sample"), ("shared", "sample"), ("zero", "token"), ("shared", "token")]
each_bank = pytest.mark.parametrize("time, per", BANKS)


@pytest.fixture(scope="module")
def host():
    return tiny_host()


def change(bank, time, per):
    routers = {name: replace(router, per=per) for name, router in bank.info.routers.items()}
    return Bank(replace(bank.info, source=SourceInfo(time), routers=routers), bank.tensors)


def make_trainer(host, time, per):
    trainer = tiny_trainer(host, sample_steps=3)
    trainer.bank, trainer.exported_bank = (change(bank, time, per) for bank in (trainer.bank, trainer.exported_bank))
    return trainer


def follow_attachment(host, bank, routing, source, x, prompts, times, cfg=1.0, negative_reads=True):
    """Euler's steps, each a forward of FLUX with what the attachment appends."""
    sources = [Source(source, routing)]
    attachment = Attachment(bank)
    with torch.no_grad():
        for t, following in zip(times, times[1:]):
            at = torch.full((len(x),), float(t))
            v, *negative = (
                velocity(host.flux, x, at, *prompt, None, attachment, sources if negative_reads or not i else [])
                for i, prompt in enumerate(prompts)
            )
            v = negative[0] + cfg * (v - negative[0]) if negative else v
            x = x + (float(following) - float(t)) * v
    return host.unscale_latent(x)


def close(found, expected):
    assert torch.allclose(found, expected, atol=1e-4)


class Encoders:
    """A picture is its latent already; a prompt is as long as its words."""

    def encode(self, pictures):
        return torch.stack([torch.as_tensor(picture) for picture in pictures])

    def encode_prompts(self, prompts):
        sizes = torch.tensor([float(len(prompt)) for prompt in prompts])
        return sizes[:, None, None].expand(-1, 3, 8).sin(), sizes[:, None].expand(-1, 4).cos()

    def decode(self, latents):
        return latents


@pytest.mark.parametrize("guided", [False, True])
@each_bank
def test_sampled_latents_are_the_attachment_s(host, time, per, guided):
    trainer = make_trainer(host, time, per)
    batch = make_val_batch(trainer.datasets["ground"])
    told, untold = (
        EncodedPrompt(batch.context, batch.pooled),
        EncodedPrompt(batch.context.flip(0), batch.pooled.flip(0)),
    )
    times, routing = (1.0, 0.6, 0.3, 0.0), Routing(task="ground")
    settings = SamplingSettings(times, cfg=2.5, negative=untold, guided_by_source=guided)
    found = sample_latents(host, trainer.bank, routing, batch.source, batch.noise, told, settings)
    expected = follow_attachment(
        host, trainer.bank, routing, batch.source, batch.noise, (told, untold), times, 2.5, not guided
    )
    close(found, expected)


@pytest.mark.parametrize("time", ["zero", "shared"])
def test_sampling_with_features_that_weigh_nothing_is_the_attachment_s(host, time):
    trainer = tiny_feature_trainer(host, "coredi")
    bank, batch = change(trainer.bank, time, "sample"), make_val_batch(trainer.datasets["inpaint"])
    prompt, times, routing = EncodedPrompt(batch.context, batch.pooled), (1.0, 0.5, 0.0), Routing(task="inpaint")
    sampler = FeatureSampler([trainer.export_features()], weight=0.0)
    found = sampler(host, bank, routing, batch.source, batch.noise, prompt, SamplingSettings(times))
    close(found, follow_attachment(host, bank, routing, batch.source, batch.noise, [prompt], times))


@each_bank
def test_a_run_s_samples_are_the_attachment_s(host, time, per):
    trainer = make_trainer(host, time, per)
    for task in ("inpaint", "ground"):  # by the newest router, the older task too
        found, batch = sample_task(trainer, task, count=2)
        prompt, times = EncodedPrompt(batch.context, batch.pooled), make_timesteps(3, 4)
        routing = Routing(task=task, router="ground")
        expected = follow_attachment(host, trainer.exported_bank, routing, batch.source, batch.noise, [prompt], times)
        close(found, expected)


@pytest.mark.parametrize("guided", [False, True])
@each_bank
def test_evaluated_pictures_are_the_attachment_s(host, time, per, guided):
    bank, encoders = make_trainer(host, time, per).bank, Encoders()
    source = torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(1)).numpy()
    settings = GenerationSettings(3, 1.0, 2.0, guided_by_source=guided)
    found = ImageGenerator(host, encoders, bank, settings)("ground", source, "a dog", (32, 32), 5)
    noise = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(5))
    prompts, times = [encoders.encode_prompts([words]) for words in ("a dog", "")], make_timesteps(3, 4)
    expected = follow_attachment(
        host, bank, Routing(task="ground"), encoders.encode([source]), noise, prompts, times, 2.0, not guided
    )
    close(found, expected[0])


@pytest.mark.parametrize("guided", [False, True])
@each_bank
def test_answers_to_a_world_s_questions_are_the_attachment_s(host, time, per, guided):
    bank, encoders = make_trainer(host, time, per).bank, Encoders()
    sources = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(1)).numpy()
    examples = [SimpleNamespace(task="ground", source=one, prompt="a" * i) for i, one in enumerate(sources, 3)]
    questions = [SimpleNamespace(example=one) for one in examples]
    found = answer_questions(host, encoders, bank, questions, seed=5, guided_by_source=guided)
    noise = torch.randn(2, 16, 4, 4, generator=torch.Generator().manual_seed(5))
    prompts = [encoders.encode_prompts(words) for words in (["aaa", "aaaa"], ["", ""])]
    times = make_timesteps(STEPS)
    expected = follow_attachment(
        host, bank, Routing(task="ground"), encoders.encode(sources), noise, prompts, times, CFG, not guided
    )
    close(found, expected)


def test_a_run_trains_routes_per_token_with_the_shared_time_and_samples_them(host, tmp_path):
    curriculum = tiny_curriculum(3, ("inpaint", "ground"), source_time="shared", rate=0.1)
    first, second = curriculum.stages
    run = tiny_run(tmp_path, replace(curriculum, stages=(replace(first, route="token"), second)), host)
    bank = run.train()
    assert bank.info.source.time == "shared"
    assert [router.per for router in bank.info.routers.values()] == ["token", "token"]  # the second as the first
    batch = make_val_batch(run.datasets["ground"])
    prompt, times, routing = EncodedPrompt(batch.context, batch.pooled), (1.0, 0.5, 0.0), Routing(task="ground")
    args = (routing, batch.source, batch.noise)
    found = sample_latents(host, bank, *args, prompt, SamplingSettings(times))
    close(found, follow_attachment(host, bank, *args, [prompt], times))
    assert not torch.allclose(
        found, sample_latents(host, change(bank, "zero", "token"), *args, prompt, SamplingSettings(times))
    )


def count_by_attachment(host, bank, batch, time):
    """By sample and block: the columns that the attachment's router chooses at a timestep."""
    x, at = host.scale_latent(batch.target), torch.full((len(batch.ids),), time)
    sources = [Source(batch.source, Routing(task=batch.task, router="ground"))]
    with torch.no_grad():
        appended = Attachment(bank).prepare(host, sources, FluxInputs(x, at, batch.context, batch.pooled))
    return [sample.routes for sample in appended.sources[0].samples]


@each_bank
@pytest.mark.parametrize("micro", [0, 1])
def test_usage_is_of_the_attachment_s_routes(host, time, per, micro):
    trainer = make_trainer(host, time, per)
    bank, dataset = trainer.bank, trainer.datasets["ground"]
    batch, at = make_val_batch(dataset), TIMES if time == "shared" else (0.0,)
    routes = [sample for t in at for sample in count_by_attachment(host, bank, batch, t)]
    counted = count_choices(host, bank, dataset, "ground", micro)
    for block, columns in counted.items():
        expected = torch.cat([sample[block].expert.flatten() for sample in routes])
        assert sorted(columns.tolist()) == sorted(expected.tolist())
    newest = torch.cat([route.expert.flatten() for sample in routes for route in sample.values()]).float().mean().item()
    shares = (1 - newest, newest)
    assert 0.05 < newest < 0.95
    assert measure_usage(host, bank, "ground", dataset, micro) == pytest.approx(shares, abs=6e-5)
    trainer.settings = replace(trainer.settings, micro=micro)
    assert validate(trainer)["ground"].usage == pytest.approx(shares, abs=1e-5)
