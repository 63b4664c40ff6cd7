"""The training loop against the paper's equations written out, and against itself cut differently."""

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from cologen.prw.attachment import Attachment
from cologen.prw.embedded_host import velocity
from cologen.prw.source import Routing, Source
from cologen.training.base.compile import compile_blocks
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.data.batch_sampler import sample_indices
from cologen.training.distributed import ranks
from cologen.training.errors import NonFiniteLoss
from cologen.training.objective import compute_usage, sign_of_gap
from cologen.training.recipes.stage import Stage
from cologen.training.validate import TIMES, sample_task, validate
from naive import Naive
from tiny_run import (
    REAL_HEADS,
    SMALL,
    TASKS,
    gradients,
    tiny_curriculum,
    tiny_dataset,
    tiny_host,
    tiny_run,
    tiny_trainer,
)

BLOCKS = ("double_blocks.0", "single_blocks.0", "single_blocks.1")


@pytest.fixture(scope="module")
def host():
    return tiny_host()


def close(found, expected, tolerance=1e-4):
    """As numbers of one size: relative to the largest of all."""
    assert found.keys() == expected.keys()
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    assert largest > 0
    return all(torch.allclose(found[name], expected[name], rtol=0, atol=tolerance * largest) for name in expected)


def same(found, expected):
    return found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in expected)


def whole_batch(trainer):
    """The iteration as one batch of one task."""
    micro, trainer.settings = trainer.settings, replace(trainer.settings, micro=0)
    (batch,) = trainer.draw_batches()
    trainer.settings = micro
    return batch


class NoisyNaive(Naive):
    """With the router's noise of eq. 2: `noise[block]` (batch, experts), per token (batch, tokens, experts)."""

    def __init__(self, *args, noise):
        super().__init__(*args, depth=1, single=2)
        self.noise, self.chances = noise, {}

    def compute_residuals(self, bank, stage, names, block, h, per="sample", strength=1.0):
        weight, spread = (bank.tensors[f"routers.{stage}.{block}.{kind}"] for kind in ("weight", "noise"))

        def chances(mean):
            w = mean @ weight + self.noise[block] * torch.log(1 + torch.exp(mean @ spread))
            return torch.exp(w) / torch.exp(w).sum(-1, keepdim=True)

        router_input = h if per == "token" else h.mean(1)
        p = chances(router_input)
        self.routes[block] = p.argmax(-1)
        self.chances[block] = chances(router_input.detach())  # for the veteran loss: it moves the router alone

        def add(target, b, i):
            row = (b, i) if per == "token" else (b,)
            e = int(self.routes[block][row])
            return p[row][e] * self.expert(bank, names[e], block, target, h[b, i])

        samples, tokens = range(h.shape[0]), range(h.shape[1])
        return {t: torch.stack([torch.stack([add(t, b, i) for i in tokens]) for b in samples]) for t in "kv"}


def written_out(trainer, batch, noise, per="sample", source_time=None):
    """Loss and gradients by the paper's equations over the whole batch."""
    flux = NoisyNaive(trainer.host.flux.state_dict(), noise=noise)
    names = trainer.bank.info.routers[trainer.stage.name].experts
    x0 = (batch.target - 0.1159) * 0.3611
    t = batch.times.view(-1, 1, 1, 1)
    source = dict(latent=batch.source, stage=trainer.stage.name, names=names, per=per)
    x, pooled = (1 - t) * x0 + t * batch.noise, batch.pooled
    found = flux(x, batch.times, batch.context, pooled, sources=[source], bank=trainer.bank, source_time=source_time)
    task = ((found - (batch.noise - x0)) ** 2).mean()
    chosen = torch.stack(list(flux.routes.values()))  # (blocks, batch)
    hard = (chosen == trainer.newest).float().mean()
    soft = torch.stack(list(flux.chances.values()))[..., trainer.newest].mean()
    used = hard + soft - soft.detach()
    veteran = trainer.stage.veteran * (used - trainer.stage.rho).abs()
    grads = torch.autograd.grad(task + veteran, list(trainer.trained.values()), allow_unused=True)
    grads = [torch.zeros_like(t) if g is None else g for g, t in zip(grads, trainer.trained.values())]
    shares = [(chosen == expert).float().mean().item() for expert in range(len(names))]
    return dict(zip(trainer.trained, grads)), task.item(), veteran.item(), shares


def with_noise(trainer, seed=11, tokens=()):
    """Router noise that is drawn here: by block and by a sample's seed, for each of so many `tokens`."""
    drawn = {}

    def of(block, sample):
        if (block, sample) not in drawn:
            g = torch.Generator().manual_seed(seed + len(drawn))
            drawn[block, sample] = torch.randn(*tokens, trainer.newest + 1, generator=g)
        return drawn[block, sample]

    trainer.make_router_noise = lambda batch: lambda block, like: torch.stack([of(block, each) for each in batch.seeds])
    return lambda batch: {block: torch.stack([of(block, each) for each in batch.seeds]) for block in BLOCKS}


@pytest.mark.parametrize("rho, micro", [(0.8, 0), (0.0, 2)])
def test_an_iteration_is_the_papers_equations_written_out(rho, micro):
    trainer = tiny_trainer(tiny_host(REAL_HEADS), stage=2, rho=rho, micro=micro, batch=3, clip=0.0)
    noise, batch = with_noise(trainer), whole_batch(trainer)
    expected, task, veteran, shares = written_out(trainer, batch, noise(batch))
    found, step = gradients(trainer)
    assert close(found, expected)
    assert step.task_loss == pytest.approx(task, rel=1e-5) and step.veteran_loss == pytest.approx(veteran, rel=1e-5)
    assert step.usage == pytest.approx(shares) and step.usage_of_newest == pytest.approx(shares[-1])
    assert len(set(shares)) > 1 and 0 < shares[-1] < 1
    norm = math.sqrt(sum(float((g**2).sum()) for g in expected.values()))
    assert step.norm == pytest.approx(norm, rel=1e-4)


@pytest.mark.parametrize("route, source_time", [("token", "zero"), ("sample", "shared"), ("token", "shared")])
def test_an_iteration_with_routes_per_token_or_the_shared_time_is_the_equations_too(route, source_time):
    how = dict(route=route, source_time=source_time, stage=1, batch=3, clip=0.0)
    trainer = tiny_trainer(tiny_host(REAL_HEADS), **how)
    noise, batch = with_noise(trainer, tokens=(4,) * (route == "token")), whole_batch(trainer)
    times = batch.times if source_time == "shared" else None
    expected, task, veteran, shares = written_out(trainer, batch, noise(batch), route, times)
    found, step = gradients(trainer)
    assert close(found, expected)
    assert step.task_loss == pytest.approx(task, rel=1e-5) and step.veteran_loss == pytest.approx(veteran, rel=1e-5)
    assert step.usage == pytest.approx(shares) and 0 < shares[-1] < 1


def test_the_veteran_loss_moves_the_newest_router_alone_and_by_its_weight(host):
    (none, _), (once, _), (twice, step) = (gradients(tiny_trainer(host, veteran=v, clip=0.0)) for v in (0.0, 1.0, 2.0))
    assert (
        step.veteran_loss == pytest.approx(2 * abs(step.usage_of_newest - 0.8))
        and abs(step.usage_of_newest - 0.8) > 0.01
    )
    pull = {name: once[name] - none[name] for name in none}
    assert close({name: twice[name] - none[name] for name in none}, {name: 2 * pull[name] for name in none})
    assert all(tensor.any() == name.startswith("routers.ground.") for name, tensor in pull.items())


@pytest.mark.parametrize("replay", [0.0, 0.5])
@pytest.mark.parametrize("micro", [1, 2, 3])
def test_pieces_of_any_size_give_the_whole_batchs_gradients(host, micro, replay):
    whole, all_at_once = gradients(tiny_trainer(host, batch=5, replay=replay))
    pieces, piecewise = gradients(tiny_trainer(host, batch=5, replay=replay, micro=micro))
    assert close(pieces, whole, 1e-5)
    for one, other in zip(vars(piecewise).values(), vars(all_at_once).values()):
        assert one == pytest.approx(other, rel=1e-5)
    batches = tiny_trainer(host, batch=5, replay=replay, micro=micro).draw_batches()
    sizes = [(batch.task, len(batch.ids)) for batch in batches]
    assert sum(size for _, size in sizes) == 5 and max(size for _, size in sizes) <= micro
    assert ("inpaint" in dict(sizes)) == (replay > 0)


def test_pieces_are_pushed_as_the_whole_batchs_usage_with_noise_says(host):
    trainer = tiny_trainer(host, batch=5)
    noisy = gradients(trainer)[1].usage_of_newest
    with torch.no_grad():
        still = float(
            compute_usage(
                trainer.noise_and_run_source(whole_batch(trainer), trainer.bank).source.routes.values(), trainer.newest
            )
        )
    assert abs(noisy - still) > 0.05
    # above what any piece alone adds up to, and on the other side of usage without noise
    for rho in (noisy - 0.01, (noisy + still) / 2):
        changes = dict(batch=5, rho=rho, veteran=5.0, clip=0.0)
        whole, _ = gradients(tiny_trainer(host, **changes))
        assert close(gradients(tiny_trainer(host, micro=2, **changes))[0], whole, 1e-5)


def test_a_usage_that_has_reached_rho_is_pushed_nowhere_however_the_batch_is_cut(host):
    reached = gradients(tiny_trainer(host, batch=5))[1].usage_of_newest
    for micro in (0, 1, 2):
        pulled, _ = gradients(tiny_trainer(host, batch=5, rho=reached, veteran=100.0, micro=micro))
        assert close(pulled, gradients(tiny_trainer(host, batch=5, veteran=0.0))[0], 1e-5)
    gaps = torch.tensor([-0.1, -1e-8, 0.0, 1e-8, 0.1])
    assert sign_of_gap(gaps).tolist() == [-1, 0, 0, 0, 1]


def test_replayed_samples_count_for_the_task_but_not_for_usage(host):
    trainer = tiny_trainer(host, batch=6, replay=0.5)
    own, other = sorted(trainer.draw_batches(), key=lambda batch: batch.task != "ground")
    assert own.task == "ground" and other.task == "inpaint"
    with torch.no_grad():
        errors, routes = zip(
            *(trainer.measure_errors(batch, trainer.make_router_noise(batch)) for batch in (own, other))
        )
    _, step = gradients(trainer)
    assert step.task_loss == pytest.approx(float(torch.cat(errors).mean()), rel=1e-6)
    chosen = [int(expert) for route in routes[0].values() for expert in route.expert]
    assert step.usage_of_newest == pytest.approx(chosen.count(1) / len(chosen))


def test_an_iteration_of_replayed_samples_alone_has_no_veteran_loss(host):
    step = tiny_trainer(host, replay=1.0).train_iteration()
    assert step.veteran_loss == 0 and step.usage == (0, 0) and step.task_loss > 0


def test_checkpointed_blocks_change_neither_losses_nor_gradients(host):
    plain, spared = (tiny_trainer(host, checkpointing=on, replay=0.3, micro=3) for on in (False, True))
    assert plain.checkpointing_options is None and spared.checkpointing_options
    for _ in range(2):
        (expected, one), (found, other) = gradients(plain), gradients(spared)
        assert same(found, expected) and one == other
        plain.train_iteration(), spared.train_iteration()
    assert same(spared.trained, plain.trained)


def test_checkpointed_blocks_give_their_activations_up(host):
    held = {}
    for on in (False, True):
        sizes = []
        trainer = tiny_trainer(host, checkpointing=on)
        with torch.autograd.graph.saved_tensors_hooks(lambda t, out=sizes: out.append(t.numel()) or t, lambda t: t):
            trainer.measure_errors(whole_batch(trainer), trainer.make_router_noise(whole_batch(trainer)))
        held[on] = sum(sizes)
    assert held[True] < held[False] / 2


@pytest.mark.slow
def test_compiled_blocks_change_nothing_and_share_their_graphs():
    shape = dict(SMALL, depth_single_blocks=8)
    plain, host = tiny_host(shape), tiny_host(shape)
    traced = []
    compile_blocks(host.flux, lambda graph, inputs: traced.append(graph) or graph.forward)
    one, other = tiny_trainer(plain), tiny_trainer(host, checkpointing=True)
    with torch._dynamo.config.patch(recompile_limit=4, fail_on_recompile_limit_hit=True):
        for _ in range(2):  # the second forward has another source
            assert one.train_iteration() == other.train_iteration()
    assert traced and same(other.trained, one.trained)


def test_what_is_frozen_gets_no_gradient_and_stays_to_the_bit(host):
    before = {name: tensor.clone() for name, tensor in host.flux.state_dict().items()}
    trainer = tiny_trainer(host, stage=2, weight_decay=0.1)
    older = {name: tensor.clone() for name, tensor in trainer.bank.tensors.items() if name not in trainer.trained}
    start = {name: tensor.detach().clone() for name, tensor in trainer.trained.items()}
    for _ in range(3):
        trainer.train_iteration()
    assert {name.split(".")[1] for name in trainer.trained} == {"edit"}
    assert {name.split(".")[1] for name in older} == {"inpaint", "ground"}
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in host.flux.parameters())
    assert same(host.flux.state_dict(), before)
    result = trainer.export_bank()
    assert same({name: result.tensors[name] for name in older}, older)
    assert all(trainer.bank.tensors[name].grad is None for name in older)
    assert not any(torch.equal(result.tensors[name], tensor) for name, tensor in start.items())
    assert result.info.experts["edit"].iterations == 3


def test_a_stage_can_leave_older_columns_of_its_router_as_they_are(host):
    """The newest column then moves as it would have: its gradient is the whole matrix's own."""
    trainer = tiny_trainer(host, stage=2, clip=0.0, columns="newest")
    start = {name: tensor.detach().clone() for name, tensor in trainer.trained.items()}
    whole, _ = gradients(tiny_trainer(host, stage=2, clip=0.0))
    for name, gradient in gradients(trainer)[0].items():
        if name.startswith("routers."):
            assert gradient[:, :-1].abs().max() == 0 < whole[name][:, :-1].abs().max()
            assert torch.equal(gradient[:, -1], whole[name][:, -1])
    for _ in range(3):
        trainer.train_iteration()
    for name, tensor in trainer.export_bank().tensors.items():
        if name.startswith("routers.edit."):
            assert torch.equal(tensor[:, :-1], start[name][:, :-1]) and not torch.equal(
                tensor[:, -1], start[name][:, -1]
            )


def test_an_earlier_task_with_its_own_router_stays_to_the_bit(tmp_path):
    host, curriculum = tiny_host(), tiny_curriculum(iterations=3)
    g = torch.Generator().manual_seed(1)
    x, latent = torch.randn(2, 16, 4, 4, generator=g), torch.randn(2, 16, 4, 4, generator=g)
    words, pooled, t = torch.randn(2, 3, 8, generator=g), torch.randn(2, 4, generator=g), torch.tensor([0.3, 0.9])

    def seen(task):
        bank = tiny_run(tmp_path, curriculum, host).train(only=bank_of[task])
        return {
            each: velocity(host.flux, x, t, words, pooled, None, Attachment(bank), [Source(latent, Routing(task=each))])
            for each in TASKS[: TASKS.index(task) + 1]
        }

    bank_of = dict(zip(TASKS, TASKS))
    after = {task: seen(task) for task in TASKS}
    assert torch.equal(after["inpaint"]["inpaint"], after["edit"]["inpaint"])
    assert torch.equal(after["ground"]["ground"], after["edit"]["ground"])
    assert not torch.equal(after["edit"]["ground"], after["edit"]["edit"])


def out_of_memory(host, monkeypatch, times):
    """FLUX has no room at these calls."""
    calls, forward = [], host.flux.forward

    def called(*args, **kwargs):
        calls.append(1)
        if len(calls) in times:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return forward(*args, **kwargs)

    monkeypatch.setattr(host.flux, "forward", called)


def test_an_iteration_that_does_not_fit_is_skipped_whole_and_counted(monkeypatch):
    host = tiny_host()
    trainer, untouched = tiny_trainer(host, micro=2), tiny_trainer(tiny_host(), micro=2)
    out_of_memory(host, monkeypatch, {2, 6, 7})  # two pieces each: the second of the first, and so on
    before = {name: tensor.detach().clone() for name, tensor in trainer.trained.items()}
    assert trainer.train_iteration() is None and trainer.skipped == 1 and trainer.iteration == 1
    assert same(trainer.trained, before) and all(tensor.grad is None for tensor in trainer.trained.values())
    untouched.iteration = 1
    assert trainer.train_iteration() == untouched.train_iteration() and same(trainer.trained, untouched.trained)
    assert trainer.train_iteration() is None and trainer.train_iteration() is None and trainer.skipped == 3
    assert trainer.train_iteration() is not None and trainer.skipped_in_a_row == 0


def test_three_misses_in_a_row_end_in_a_sentence(monkeypatch):
    host = tiny_host()
    trainer = tiny_trainer(host, micro=2)
    out_of_memory(host, monkeypatch, range(100))
    assert trainer.train_iteration() is None and trainer.train_iteration() is None
    with pytest.raises(TrainingError, match="Memory ran out 3 times in a row .micro is 2.: set micro") as caught:
        trainer.train_iteration()
    assert "\n" not in str(caught.value)


def test_everyones_samples_are_all_ranks_shares(monkeypatch):
    """They are named where the sum of all gradients is not finite, which may be any rank's."""
    trainer = tiny_trainer(tiny_host(), batch=8)

    def ids(**how):
        return sum((batch.ids for batch in trainer.draw_batches(**how)), ())

    whole = ids()
    monkeypatch.setattr(ranks, "world_size", lambda: 2)
    shares = []
    for rank in range(2):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        shares.append(ids())
        assert ids(all_ranks=True) == whole
    assert [len(share) for share in shares] == [4, 4] and sorted(sum(shares, ())) == sorted(whole)


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_what_is_not_finite_names_its_samples_and_touches_no_weight(where):
    trainer = tiny_trainer(tiny_host(), micro=2)
    before = {name: tensor.detach().clone() for name, tensor in trainer.trained.items()}
    if where == "loss":
        trainer.datasets["ground"].samples.target[:] = torch.nan
        expected = trainer.draw_batches()[0].ids
    else:
        next(iter(trainer.trained.values())).register_hook(lambda grad: grad * torch.inf)
        expected = sum((batch.ids for batch in trainer.draw_batches()), ())
    with pytest.raises(NonFiniteLoss, match="not finite at iteration 0: look at the samples named in not") as caught:
        trainer.train_iteration()
    assert caught.value.ids == expected and set(expected) <= set(trainer.datasets["ground"].samples.ids)
    assert same(trainer.trained, before)


def test_an_epoch_sees_every_taught_lesson_once_and_none_that_is_held_out(host):
    trainer = tiny_trainer(host, batch=5)
    stage, lessons = trainer.stage, trainer.datasets["ground"]
    taught = {"ground": lessons.train_count}
    seen = [slot for k in range(11) for slot in sample_indices(7, 1, k, stage, taught)]
    assert lessons.train_count == 11 and len(seen) == 5 * 11
    for epoch in range(5):
        assert sorted(slot.index for slot in seen[11 * epoch : 11 * epoch + 11]) == list(range(11))
    assert len({tuple(slot.index for slot in seen[11 * e : 11 * e + 11]) for e in range(5)}) == 5
    assert len({slot.seed for slot in seen}) == len(seen)


def test_words_are_dropped_as_often_as_asked_and_times_are_the_sigmoid_of_a_normal(host):
    trainer = tiny_trainer(host, batch=400, text_drop=0.25)
    batch = whole_batch(trainer)
    empty = torch.ones(2, 8)
    dropped = [bool((context[:2] == empty).all()) and not context[2:].any() for context in batch.context]
    assert np.mean(dropped) == pytest.approx(0.25, abs=0.07)
    assert all(bool((pooled == 1).all()) == gone for pooled, gone in zip(batch.pooled, dropped))
    scores = batch.times.logit()
    assert float(scores.mean()) == pytest.approx(0, abs=0.15) and float(scores.std()) == pytest.approx(1, abs=0.12)
    assert float(batch.noise.std()) == pytest.approx(1, abs=0.02)


def test_the_routers_noise_fades_over_the_end_of_the_stage(host):
    trainer = tiny_trainer(host, iterations=10, noise_end=0.6)
    scales = []
    for trainer.iteration in range(10):
        scales.append(trainer.make_router_noise(whole_batch(trainer)).scale)
    assert scales == pytest.approx([1, 1, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])


def test_the_average_is_what_a_stage_leaves_and_what_is_validated(host):
    trainer = tiny_trainer(host, ema=0.5)
    average = {name: tensor.detach().clone() for name, tensor in trainer.trained.items()}
    for k in range(4):
        trainer.train_iteration()
        keep = min(0.5, (1 + k) / (10 + k))
        average = {name: keep * average[name] + (1 - keep) * trainer.trained[name].detach() for name in average}
    result = trainer.export_bank()
    assert close({name: result.tensors[name] for name in average}, average, 1e-6)
    assert not same({name: result.tensors[name] for name in average}, trainer.trained)
    plain = tiny_trainer(host)
    for name, tensor in plain.trained.items():
        tensor.data.copy_(result.tensors[name])
    assert validate(plain) == validate(trainer)
    assert torch.equal(sample_task(plain, "ground", 1)[0], sample_task(trainer, "ground", 1)[0])


def test_validation_is_the_same_number_twice_and_no_part_of_training(host):
    quiet, watched = tiny_trainer(host, batch=5), tiny_trainer(host, batch=5)
    first = validate(watched)
    assert validate(watched) == first and list(first) == ["inpaint", "ground"]
    for _ in range(2):
        assert quiet.train_iteration() == watched.train_iteration()
        assert validate(watched) != first
    assert same(watched.trained, quiet.trained)


def test_validation_is_the_mean_error_at_fixed_times_of_what_is_held_out(host):
    trainer = tiny_trainer(host)
    lessons = trainer.datasets["ground"]
    found = validate(trainer)["ground"]
    noise = torch.randn(1, 16, 4, 4, generator=torch.Generator().manual_seed(0))
    x0, errors = (lessons.samples.target[11:] - 0.1159) * 0.3611, []
    attachment = Attachment(trainer.export_bank())
    for time in TIMES:
        x, source = (1 - time) * x0 + time * noise, Source(lessons.samples.source[11:], Routing(task="ground"))
        asked = (torch.tensor([time]), lessons.samples.context[11:], lessons.samples.pooled[11:])
        made = velocity(host.flux, x, *asked, attachment=attachment, sources=[source])
        errors.append(float(((made - (noise - x0)) ** 2).mean()))
    assert found.loss == pytest.approx(np.mean(errors), rel=1e-5)
    routes = next(iter(attachment.cache.entries.values())).sample.routes.values()
    assert found.usage[1] == pytest.approx(sum(int(route.expert) for route in routes) / 3)
    lessons.samples.target[:11] += 1
    assert validate(trainer)["ground"] == found


def test_a_batch_that_is_only_replay_is_drawn_from_every_earlier_task(host):
    trainer = tiny_trainer(host, stage=2, batch=40, replay=1.0)
    tasks = [slot.task for slot in sample_indices(7, 2, 0, trainer.stage, {task: 11 for task in TASKS})]
    assert set(tasks) == {"inpaint", "ground"} and 10 < tasks.count("ground") < 30


def test_a_stage_mixes_in_the_tasks_that_it_names_by_their_weights(host):
    counts = {task: 11 for task in ("inpaint", "ground", "control", "edit")}
    stage = Stage(name="edit", batch=3000, replay=0.5, replay_from={"ground": 3.0, "control": 1.0})
    tasks = Counter(slot.task for slot in sample_indices(7, 3, 0, stage, counts))
    assert tasks.keys() == {"edit", "ground", "control"}
    for task, share in (("edit", 0.5), ("ground", 0.375), ("control", 0.125)):
        assert abs(tasks[task] / 3000 - share) < 0.03


def test_a_task_that_is_mixed_in_without_data_is_named_before_its_stage(tmp_path):
    recipe = tiny_curriculum(1)
    last = replace(recipe.stages[-1], replay=0.5, replay_from={"ground": 1.0})
    recipe = replace(recipe, stages=(*recipe.stages[:-1], last))
    run = tiny_run(tmp_path, recipe, datasets={task: tiny_dataset(task) for task in ("inpaint", "edit")})
    with pytest.raises(TrainingError, match="edit mixes in ground, of which there is no data: add some, or leave"):
        run._collect_datasets(last)
