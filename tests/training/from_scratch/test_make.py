"""Models are made from nothing by one call, and what was stopped goes on as if nothing had happened."""

import json
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.base_model import Base
from cologen.prw.base_weights import BaseWeights
from cologen.prw.embedded_host import velocity
from cologen.prw.source import Routing, Source
from cologen.training.errors import RunStopped
from cologen.training.from_scratch.learner import Learner, LearnerPlan, learn
from cologen.training.from_scratch.make import WorldTraining, draw_crops
from cologen.training.from_scratch.pretrain import Pretraining, draw_batch, draw_batches
from cologen.training.from_scratch.recipe import LATER_FIELDS, PRECISIONS, ScratchRecipe
from cologen.training.from_scratch.sheet import COLUMNS, draw_sheet
from cologen.training.from_scratch.store import FLUX, TEXT, VAE, find_parts, open_encoders
from cologen.training.from_scratch.vae import Components, DecoderTraining, make_decoder, to_tensor
from cologen.training.setup.worlds import WORLDS
from cologen.training.toy.store import TOY
from cologen.training.world.store import STICKERS

SMALL = ScratchRecipe(
    text_iterations=4, text_batch=4, decoder_iterations=4, decoder_batch=2, flux_iterations=4, flux_batch=2
)
pytestmark = pytest.mark.slow


class Killed(Exception):
    pass


def stop_at(kind: str, iteration: int):
    def progress(made: str, done: int, total: int) -> None:
        if (made, done) == (kind, iteration):
            raise Killed

    return progress


def quick(world):
    """The world with fewer pictures from which the VAE begins."""
    return replace(world, draw_typical=lambda rng: world.draw_typical(rng, 20))


def read_all(folder):
    return {path.name: path.read_bytes() for name in (TEXT, VAE, FLUX) for path in find_parts(folder / name)}


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.long if i else ()) for i, name in enumerate(WORLDS)]
)
def test_what_was_stopped_in_any_part_goes_on_as_if_nothing_had_happened(tmp_path, name):
    world = quick(WORLDS[name])
    models = WorldTraining(world, SMALL, tmp_path / "whole", 3).make_models()
    assert all(torch.isfinite(parameter).all() for parameter in models.flux.parameters())
    for part in ("text", "decoder", "flux"):
        with pytest.raises(Killed):
            WorldTraining(world, SMALL, tmp_path / "cut", 3, progress=stop_at(part, 3), save_minutes=0).make_models()
    made: list[tuple[str, int]] = []
    note = lambda what, done, total: made.append((what, done))  # noqa: E731
    watched = replace(SMALL, sheet_minutes=1e-6)
    WorldTraining(world, watched, tmp_path / "cut", 3, progress=note).make_models()
    assert made == [("flux", 3), ("flux", 4)]
    sheets = sorted(path.name for path in (tmp_path / "cut" / "sheets").iterdir())
    assert sheets == ["0000003.png", "0000004.png"], "looking changes nothing"
    assert read_all(tmp_path / "cut") == read_all(tmp_path / "whole")
    with pytest.raises(ValueError, match="a base of another recipe or seed .*choose another folder"):
        WorldTraining(world, SMALL, tmp_path / "whole", 4).make_models()


def test_a_base_from_before_a_recipe_s_later_fields_goes_on_and_by_no_other_recipe(tmp_path):
    world, record = quick(TOY), tmp_path / "base.json"
    WorldTraining(world, SMALL, tmp_path, 3).make_models()
    about = json.loads(record.read_text())
    assert {name for name, value in about.items() if value is None} == set(LATER_FIELDS)
    assert not {"rebuild", "examples", "drawers", "sheet_minutes"} & about.keys()
    old = {name: value for name, value in about.items() if value is not None} | {"rebuild": True, "examples": 9}
    record.write_text(json.dumps(old))
    WorldTraining(world, replace(SMALL, sheet_minutes=1.0, examples=8), tmp_path, 3).make_models()
    with pytest.raises(ValueError, match="flux_single: None there, 1 here"):
        WorldTraining(world, replace(SMALL, flux_single=1), tmp_path, 3).make_models()
    record.write_text(json.dumps({**old, "flux_width": 512}))
    with pytest.raises(ValueError, match="flux_width: 512 there, None here"):
        WorldTraining(world, SMALL, tmp_path, 3).make_models()


def test_a_world_without_references_is_not_trained_on_them(tmp_path):
    recipe = replace(SMALL, flux_references=0.5)
    with pytest.raises(ValueError, match="flux_references is 0.5, but the toy world draws no references, expected 0"):
        WorldTraining(TOY, recipe, tmp_path).make_models()
    assert not list(tmp_path.iterdir())


class Counting(Learner):
    """Learns nothing; its loss is the number of its iteration."""

    def __init__(self):
        super().__init__("counting", {"layer": torch.nn.Linear(1, 1)}, LearnerPlan(200, 1, 0.1), 0)

    def step(self):
        self.done += 1
        return float(self.done)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_and_each_line_of_the_log_is_there_once(tmp_path, number):
    def send(name, done, total):
        if done == 130:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(RunStopped) as stopped:
        learn(Counting(), tmp_path, send)
    assert stopped.value.signal == number and signal.getsignal(number) is before
    assert [path.stem for path in tmp_path.glob("*.safetensors")] == ["counting-training-000000130"]
    log = tmp_path / "counting-losses.csv"
    with open(log, "a") as file:
        file.write("150,1.00000\n")  # from a run that was killed after it
    again = Counting()
    learn(again, tmp_path, lambda *_: None)
    assert again.done == 200
    assert log.read_text().split() == ["50,25.50000", "100,75.50000", "150,125.50000", "200,175.50000"]


def test_a_decoder_in_bf16_learns_about_what_it_does_in_fp32():
    losses = {}
    for precision in PRECISIONS:
        torch.manual_seed(0)
        rng = np.random.default_rng(0)
        pictures = to_tensor(STICKERS.draw_scenes(rng, 16))
        components, crops = Components.fit(pictures), draw_crops(STICKERS, rng, 2)
        training = DecoderTraining(
            make_decoder(), components, lambda *_, crops=crops: crops, rng, LearnerPlan(20, 2, 2e-4), precision
        )
        losses[precision] = [training.step() for _ in range(6)]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=2e-3) and losses["bf16"] != losses["fp32"]
    assert losses["bf16"][-1] < losses["bf16"][0]


@pytest.mark.parametrize(
    "name, value",
    [("flux_shift", 0.0), ("flux_shift", -1.0), ("flux_rate", -1e-3), ("flux_width", 200), ("flux_references", 0.8)],
)
def test_a_recipe_that_could_not_learn_is_refused(name, value):
    with pytest.raises(ValueError, match=name):
        ScratchRecipe(**{name: value})


@pytest.fixture(scope="module")
def encoders(tmp_path_factory):
    folder = tmp_path_factory.mktemp("base")
    training = WorldTraining(quick(STICKERS), SMALL, folder)
    training.make_text()
    training.make_vae()
    return open_encoders(STICKERS, folder)


@pytest.mark.parametrize("precision", ["fp32", pytest.param("bf16", marks=pytest.mark.long)])
def test_pretraining_learns(encoders, precision):
    recipe = replace(SMALL, flux_iterations=100, flux_batch=4, flux_rate=3e-3, flux_single=1, flux_double=1)
    run = Pretraining(STICKERS, encoders, replace(recipe, flux_precision=precision))
    pictures, texts = STICKERS.draw_captioned(np.random.default_rng(1), 16)
    latents = run.encode(pictures)

    def measure() -> float:
        with torch.no_grad():
            return run.loss(latents, *encoders.encode_prompts(texts), torch.Generator().manual_seed(0)).item()

    before = measure()
    for _ in range(20):
        run.step()
    assert measure() < 0.9 * before
    sheet = draw_sheet(run)
    assert sheet.shape == (6 * 128, COLUMNS * 128, 3)
    right = sheet.reshape(6, 128, COLUMNS // 2, 2, 128, 3)[5, :, :, 1]
    pairs, _ = STICKERS.draw_diptychs(skip_captioned(), COLUMNS // 2)
    given = encoders.decode(encoders.encode(pairs))[:, :, 128:]
    assert np.abs(right.transpose(1, 0, 2, 3).astype(int) - given)[:, :, 16:].mean() < 2, "the given half is kept"


@pytest.mark.parametrize("task", ["edit", "subject"])
def test_pretraining_reads_a_reference_as_any_source_without_a_bank_is_read(encoders, task):
    run = Pretraining(STICKERS, encoders, replace(SMALL, flux_single=1, flux_double=1))
    for parameter in run.flux.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    rng = np.random.default_rng(2)
    batch = next(batch for batch in (STICKERS.draw_referenced(rng, 2) for _ in range(40)) if batch.task == task)
    x, times = run.encode(batch.pictures), torch.tensor([0.4, 0.9])
    context, pooled = encoders.encode_prompts(batch.texts)
    read = partial(run.read_reference, batch)
    source = Source(encoders.encode(list(batch.references)), Routing(task=task))
    attachment = Attachment(BaseWeights(Base.of(run.flux)))
    with torch.no_grad():
        found = run.predict(x, times, context, pooled, read)
        wanted = velocity(run.flux, x, times, context, pooled, attachment=attachment, sources=[source])
        alone = run.predict(x, times, context, pooled)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    assert (found - alone).abs().mean() > 0.01


def test_references_teach_the_weights_that_read_them(encoders):
    run = Pretraining(STICKERS, encoders, replace(SMALL, flux_single=1, flux_double=1, flux_references=0.75))
    for parameter in run.flux.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    given = STICKERS.draw_referenced(np.random.default_rng(2), 2)
    latents, words = run.encode(given.pictures), encoders.encode_prompts(given.texts)
    losses, gradients = [], []
    for read in (partial(run.read_reference, given), torch.no_grad()(partial(run.read_reference, given))):
        run.flux.zero_grad()
        loss = run.loss(latents, *words, torch.Generator().manual_seed(0), read=read)
        loss.backward()
        losses.append(loss.item())
        gradients.append(run.flux.img_in.weight.grad.clone())
    assert losses[0] == losses[1] and not torch.allclose(*gradients)
    assert run.draw_batch(0).referenced is not None and np.isfinite(run.step())
    assert draw_sheet(run).shape == (8 * 128, COLUMNS * 128, 3)


def skip_captioned():
    rng = np.random.default_rng((10**6, 0))
    STICKERS.draw_captioned(rng, 2 * COLUMNS)
    return rng


def test_a_recipe_says_how_many_iterations_show_diptychs():
    draw = partial(draw_batch, TOY, replace(SMALL, flux_batch=1, flux_diptychs=0.1), 3)
    wide = [batch.pictures.shape[2] > TOY.side for batch in map(draw, range(400))]
    assert 0.05 < np.mean(wide) < 0.15
    with pytest.raises(ValueError, match="flux_references is 0.8, expected 0 to 0.75"):
        ScratchRecipe(flux_references=0.8)
    assert ScratchRecipe(flux_references=0.8, flux_diptychs=0.2).flux_references == 0.8


def test_batches_drawn_ahead_are_the_same():
    draw = partial(draw_batch, STICKERS, replace(SMALL, flux_references=0.5), 5)
    found = list(draw_batches(draw, range(7, 13), workers=1))
    assert len({batch.referenced is None for batch in found}) == 2
    for iteration, batch in zip(range(7, 13), found, strict=True):
        wanted = draw(iteration)
        assert (batch.pictures == wanted.pictures).all() and batch[1:4] == wanted[1:4]
        if batch.referenced is not None:
            assert (batch.referenced.references == wanted.referenced.references).all()
