"""Training beside an encoder's features: the third stream, its three ways, and what stops a collapse."""

from dataclasses import replace

import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.coredi.features import make_pooling_matrix
from cologen.prw.flux.math import timestep_embedding
from cologen.training.checkpoint.checkpoints import TrainingError
from cologen.training.coredi.encoder_features import FeatureEncoder, load_features
from cologen.training.coredi.trainer import draw_feature_noise
from cologen.training.forward import predict_velocity
from cologen.training.monitor.log import Log
from cologen.training.objective import task_loss
from cologen.training.stage_trainer import StageTrainer
from stopped_run import StopAt, logged_iterations, saved_files
from tiny_features import forward_with_features, tiny_feature_trainer
from tiny_run import TinyEncoders, gradients, tiny_curriculum, tiny_dataset, tiny_host, tiny_run

WAYS = ("auxiliary", "self", "coredi")


@pytest.fixture(scope="module")
def host():
    return tiny_host()


def one_batch(trainer):
    (batch,) = trainer.draw_batches()
    return batch, trainer.noise_and_run_source(batch, trainer.bank, trainer.make_router_noise(batch))


def near(found, expected, tolerance=1e-4):
    largest = max(float(tensor.abs().max()) for tensor in expected.values())
    return found.keys() == expected.keys() and all(
        torch.allclose(found[name], expected[name], rtol=0, atol=tolerance * largest) for name in expected
    )


def test_cells_are_means_and_their_places_are_centres():
    tokens = torch.randn(16 * 24, 3, generator=torch.Generator().manual_seed(0))
    found, grid = make_pooling_matrix(16, 24) @ tokens, tokens.view(16, 24, 3)
    for row in range(8):
        for column in range(8):
            cell = grid[2 * row : 2 * row + 2, 3 * column : 3 * column + 3].reshape(6, 3)
            assert torch.allclose(found[8 * row + column], cell.mean(0), atol=1e-6)
    assert len(found) == 65 and torch.allclose(found[64], tokens.mean(0), atol=1e-6)
    assert make_pooling_matrix(2, 3).shape == (7, 6)


def test_the_stream_is_more_of_the_picture_where_no_expert_bends_it(host):
    trainer = tiny_feature_trainer(host, "coredi", up=0.0, checkpointing=False)
    batch, given = one_batch(trainer)
    z = torch.randn(4, 5, 4, generator=torch.Generator().manual_seed(3))
    stream = trainer.make_stream(given, z, torch.ones(4, dtype=torch.bool))
    h, places = stream.h, torch.tensor([[0, 0, 0], [0, 0, 1], [0, 1, 0], [0, 1, 1], [0, 0.5, 0.5]])
    with torch.no_grad():
        tokens, own = forward_with_features(host, given, h, places)
        velocity, _ = trainer.run_flux(given, stream)
        plain, _ = trainer.run_flux(given)
    rows = host.flux.final_layer(
        tokens, host.flux.time_in(timestep_embedding(given.inputs.times)) + host.flux.vector_in(given.inputs.pooled)
    )
    expected = rows.view(4, 2, 2, 16, 2, 2).permute(0, 3, 1, 4, 2, 5).reshape(4, 16, 4, 4)
    assert torch.allclose(velocity, expected, atol=1e-4) and not torch.allclose(velocity, plain, atol=1e-2)
    assert torch.allclose(stream.h, own, atol=1e-4) and not torch.allclose(stream.h, h, atol=1e-2)


def test_experts_bend_the_streams_keys_and_values_by_the_sources_routes(host):
    found = []
    for up in (0.0, 0.5):
        trainer = tiny_feature_trainer(host, "coredi", up=up)
        _, given = one_batch(trainer)
        given = given._replace(source=given.source._replace(options={}))  # without what they do to the source
        stream = trainer.make_stream(given, torch.ones(4, 5, 4), torch.ones(4, dtype=torch.bool))
        gates = {block: route._replace(gate=0 * route.gate) for block, route in given.source.routes.items()}
        with torch.no_grad():
            found.append(trainer.run_flux(given, stream)[0])
            stream = trainer.make_stream(given, torch.ones(4, 5, 4), torch.ones(4, dtype=torch.bool))
            stream.routes = gates
            found.append(trainer.run_flux(given, stream)[0])
    without, closed, bent, shut = found
    assert torch.equal(without, closed) and torch.equal(shut, without) and not torch.allclose(bent, without, atol=1e-3)


def test_a_picture_that_may_not_read_them_is_the_plain_one(host):
    trainer = tiny_feature_trainer(host, "coredi")
    _, given = one_batch(trainer)
    read = torch.tensor([True, False, True, False])
    with torch.no_grad():
        found, _ = trainer.run_flux(given, trainer.make_stream(given, torch.ones(4, 5, 4), read))
        plain = predict_velocity(host, given.source, given.inputs)
    for sample in range(4):
        assert torch.allclose(found[sample], plain[sample], atol=1e-5) != bool(read[sample])


@pytest.mark.parametrize("way", WAYS)
def test_at_inference_and_in_its_file_a_bank_knows_nothing_of_it(host, tmp_path, way):
    curriculum = tiny_curriculum(2, ("inpaint", "edit"), feature_size=4)
    stages = tuple(replace(stage, features=way) for stage in curriculum.stages)
    tiny_run(tmp_path / "with", replace(curriculum, stages=stages), host).train()
    tiny_run(tmp_path / "without", curriculum, host).train()
    ours, plain = (Bank.open(tmp_path / name / "bank.safetensors") for name in ("with", "without"))
    assert set(ours.tensors) == set(plain.tensors) and ours.info.experts == plain.info.experts
    assert not host.flux.final_layer._forward_pre_hooks


def test_off_is_the_trainer_that_was_and_a_weight_of_nothing_changes_nothing(host):
    plain, _ = gradients(tiny_feature_trainer(host, "off"))
    trainer = tiny_feature_trainer(host, "auxiliary", feature_weight=0.0)
    found, _ = gradients(trainer)
    assert all(torch.equal(found[name], plain[name]) for name in plain)
    assert type(tiny_feature_trainer(host, "off")) is StageTrainer
    taught, _ = gradients(tiny_feature_trainer(host, "auxiliary", feature_weight=1.0))
    assert any(not torch.allclose(taught[name], plain[name], atol=1e-3) for name in plain)


@pytest.mark.parametrize("way", WAYS)
def test_neither_pieces_nor_checkpointing_change_a_gradient(host, way):
    whole, step = gradients(tiny_feature_trainer(host, way, batch=8))
    for changes in ({"micro": 3}, {"checkpointing": True}):
        found, other = gradients(tiny_feature_trainer(host, way, batch=8, **changes))
        assert near(found, whole) and other.task_loss == pytest.approx(step.task_loss, rel=1e-5)
        assert other.extra == pytest.approx(step.extra, rel=1e-4)
    assert set(step.extra) == {"features", *(["rank"] if way == "coredi" else [])}
    assert all(tensor.any() for name, tensor in whole.items() if name.startswith("features."))


def test_the_projection_learns_through_its_tokens_alone(host):
    def pull(trainer):
        return gradients(trainer)[0]["features.projection"]

    trainer = tiny_feature_trainer(host, "coredi", batch=16)
    p = trainer.trained["features.projection"]
    p.data.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(1)))
    (held,) = torch.autograd.grad(trainer.projection.penalty(p), p)
    assert held.any() and (pull(trainer) - held).abs().max() > 3 * held.abs().max()
    trainer.trained["features.in.weight"].data.zero_()  # the tokens say nothing of z; its loss still does
    assert torch.allclose(pull(trainer), held, rtol=1e-4, atol=1e-9)


def test_the_loss_is_written_out(host):
    trainer = tiny_feature_trainer(host, "coredi", batch=16)
    batch, given = one_batch(trainer)
    with torch.no_grad():
        velocity, beside = trainer.predict(batch, given)
        p = trainer.trained["features.projection"]
        small = trainer.projection.project(trainer.features[list(batch.rows)].float(), p)
        draw = draw_feature_noise(batch, small)
        read, total = draw.uniform >= 0.2, 0.0
        assert 0 < read.sum() < 16
        t = batch.times.view(-1, 1, 1)
        stream = trainer.make_stream(given, (1 - t) * small + t * draw.noise, read)
        errors, expected = (
            task_loss(v, given.target, given.noise)
            for v in (velocity, predict_velocity(host, given.source.with_patches([stream]), given.inputs))
        )
        assert torch.allclose(errors, expected, atol=1e-5)
        own = {name.removeprefix("features."): tensor for name, tensor in trainer.trained.items()}
        for told, true, kept in zip(stream.h, small, read):
            norm = (told - told.mean(-1, keepdim=True)) / (told.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
            gap = (norm @ own["head.weight"].T + own["head.bias"] - true).abs()
            total += float(kept) * float(torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean())
        expected = 0.1 * total / 16 + float(trainer.projection.penalty(p))
        _, routes = trainer.measure_errors(batch, trainer.make_router_noise(batch))
    assert float(beside) == pytest.approx(expected, rel=1e-4) and set(routes) == set(given.source.routes)


def collapsed(trainer):
    p = trainer.trained["features.projection"]
    p.data.copy_(
        p[:, :1].expand(-1, p.shape[1]) + 1e-3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(0))
    )


def elsewhere(trainer):
    p, relation = trainer.trained["features.projection"], trainer.projection.relation
    p.data.copy_(torch.linalg.eigh(relation)[1][:, : p.shape[1]])


def too_easy(trainer):
    trainer.mean_loss *= 100


@pytest.mark.parametrize(
    "spoil, said",
    [
        (collapsed, "effective rank is 1"),
        (elsewhere, "overlap with the principal"),
        (too_easy, "a blind guess's is 0.0"),
    ],
)
def test_a_collapse_stops_the_stage(host, spoil, said):
    trainer = tiny_feature_trainer(host, "coredi")
    trainer.train_iteration()  # as it is made it stands
    spoil(trainer)
    with pytest.raises(TrainingError, match=said):
        trainer.train_iteration()


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_stage_goes_on_to_the_bit(tmp_path, way, monkeypatch):
    recipe = tiny_curriculum(4, ("inpaint",), feature_size=4, ema=0.9)
    recipe = replace(recipe, stages=(replace(recipe.stages[0], features=way),))
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    tiny_run(whole, recipe, listeners=[Log(whole)]).train()
    with pytest.raises(KeyboardInterrupt):
        tiny_run(parts, recipe, listeners=[Log(parts), StopAt("inpaint", 3, KeyboardInterrupt())]).train()
    eigh = torch.linalg.eigh
    monkeypatch.setattr(torch.linalg, "eigh", lambda m: (eigh(m)[0], -eigh(m)[1]))  # as another machine's may be
    tiny_run(parts, recipe, listeners=[Log(parts)]).train()
    assert saved_files(parts) == saved_files(whole) and logged_iterations(parts) == logged_iterations(whole)


@pytest.mark.parametrize("kind", ["SiglipVision", "CLIPVision", "CLIP"])
def test_an_encoder_is_any_vision_model(tmp_path, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48)
    shape |= dict(image_size=64, patch_size=16)
    if kind == "CLIP":
        words = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=48, vocab_size=99)
        shape = dict(vision_config=shape, text_config=words, projection_dim=8)
    network = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**shape)).eval()
    network.save_pretrained(tmp_path / "eye")
    (tmp_path / "eye/preprocessor_config.json").write_text(
        '{"image_mean": [0.5, 0.4, 0.3], "image_std": [0.5, 0.6, 0.7]}'
    )
    pictures = torch.randint(0, 256, (2, 32, 48, 3), generator=torch.Generator().manual_seed(0))
    scaled = (pictures / 255 - torch.tensor([0.5, 0.4, 0.3])) / torch.tensor([0.5, 0.6, 0.7])
    with torch.no_grad():
        sees = getattr(network, "vision_model", network)
        expected = sees(pixel_values=scaled.permute(0, 3, 1, 2), interpolate_pos_encoding=True).last_hidden_state
        found = FeatureEncoder(tmp_path / "eye")(pictures, 2, 3)
    assert found.shape == (2, 6, 32) and torch.allclose(found, expected[:, -6:], atol=1e-5)


@pytest.mark.parametrize("loss", ["smooth-l1", "velocity"])
def test_the_loss_of_coredi_is_the_one_that_the_recipe_names(host, loss):
    trainer = tiny_feature_trainer(host, "coredi", feature_weight=1.0, feature_loss=loss)
    batch, noised = one_batch(trainer)
    trainer.feature_sums.zero_()
    _, found = trainer.predict(batch, noised)
    p = trainer.trained["features.projection"]
    z = trainer.projection.project(trainer.features[list(batch.rows)].float(), p)
    drawn = draw_feature_noise(batch, z)
    reads = drawn.uniform >= 0.2
    times = noised.inputs.times
    t = times[:, None, None]
    z_t = (1 - t) * z + t * drawn.noise
    stream = trainer.make_stream(noised, z_t, reads)
    trainer.run_flux(noised, stream)
    predicted = trainer.predict_features(stream.last_tokens)
    if loss == "velocity":  # (noise - z) against what the predicted features imply
        error = (((z_t - predicted) / t - (drawn.noise - z)) ** 2).mean((1, 2)) * (times / times.clamp(min=0.05)) ** 2
    else:
        size = (predicted - z).abs()
        error = torch.where(size < 1, size**2 / 2, size - 0.5).mean((1, 2))
    penalty = len(batch.ids) * trainer.projection.penalty(p)
    assert torch.allclose(found, ((error * reads).sum() + penalty) / trainer.stage.batch, rtol=1e-3)


@pytest.mark.parametrize("kind", ["Dinov2", "Dinov2WithRegisters"])
def test_an_eye_is_dinov2_on_one_patch_a_token(tmp_path, host, kind):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    network = getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**shape)).eval()
    network.save_pretrained(tmp_path / "dino")
    processor = transformers.BitImageProcessor(image_mean=[0.485, 0.456, 0.406], image_std=[0.229, 0.224, 0.225])
    processor.save_pretrained(tmp_path / "dino")  # as DINOv2's own folders have it
    pictures = torch.randint(0, 256, (2, 28, 42, 3), generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        scaled = (pictures / 255 - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
        expected = network(pixel_values=scaled.permute(0, 3, 1, 2)).last_hidden_state[:, -6:]
        found = FeatureEncoder(tmp_path / "dino")(pictures, 2, 3)
    assert torch.allclose(found, expected, atol=1e-5)

    lessons = tiny_dataset("edit", 3)
    seen = load_features(host, lessons, TinyEncoders(), str(tmp_path / "dino"), tmp_path / "features")
    decoded = torch.from_numpy(TinyEncoders().decode(lessons.samples.target))
    assert torch.equal(seen, (make_pooling_matrix(2, 2) @ FeatureEncoder(tmp_path / "dino")(decoded, 2, 2)).half())
    (kept,) = (tmp_path / "features").iterdir()
    before = kept.stat().st_mtime_ns
    assert torch.equal(
        load_features(host, lessons, TinyEncoders(), str(tmp_path / "dino"), tmp_path / "features"), seen
    )
    assert kept.stat().st_mtime_ns == before
