"""Training on the host's FLUX: the same bank as headless, MODEL untouched, Cancel and queue again, also in a server."""

import weakref
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from cologen.prw.comfyui.conditioning import add_source
from cologen.prw.coredi.features import Features
from cologen.prw.embedded_host import EmbeddedHost
from cologen.prw.files.safetensors_writer import write_safetensors
from cologen.training.comfyui.training_data import TrainingData
from cologen.training.coredi.make_trainer import make_stage_trainer
from cologen.training.curriculum_run import CurriculumRun
from cologen.training.data.tasks.control import hed
from cologen.training.data.tasks.hed_network import HedNetwork
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.listener import Listener
from cologen.training.recipes.curriculum import Curriculum, Settings, Stage
from cologen.training.stage_length import StageLength
from host_training import (
    BLOCKS,
    SETTINGS,
    STAGES,
    TEXT,
    TWO_STAGES,
    TinyClip,
    TinyVae,
    default_inputs,
    largest_difference,
    random_dataset,
    save_pairs,
    train_on_host,
    training_data,
    with_samples,
)
from PIL import Image
from sampling import conditioning, sample
from tiny import host_model, source, tiny_flux

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def model(comfy):
    """As a loader node makes it: with weights that autograd refuses."""
    with torch.inference_mode():
        return host_model(tiny_flux(**BLOCKS))


def beside(features, **settings):
    """The two stages learning features besides."""
    stages = tuple(replace(stage, features=features) for stage in STAGES)
    return Curriculum(replace(SETTINGS, feature_size=4, **settings), stages)


FILL = dict(in_channels=384, out_channels=64)


@pytest.mark.parametrize(
    "curriculum, shape",
    [(TWO_STAGES, {}), (beside("self"), {}), (beside("coredi"), {}), (TWO_STAGES, FILL)],
    ids=["plain", "self", "coredi", "fill"],
)
def test_the_node_trains_the_bank_that_a_headless_run_trains(tmp_path, curriculum, shape):
    given = training_data()
    with torch.inference_mode():
        model = host_model(tiny_flux(**BLOCKS, **shape))
    headless = CurriculumRun(
        EmbeddedHost(tiny_flux(**BLOCKS, **shape), torch.float32),
        curriculum,
        given.datasets,
        given.encoders,
        tmp_path / "a",
        7,
        "",
        (),
        EMBEDDED_CHECKPOINTING,
        make_trainer=make_stage_trainer,
    ).train()
    found = train_on_host(model, tmp_path / "b", curriculum, given=given)
    assert largest_difference(found, headless) < 1e-4
    ups = [tensor.abs().max() for name, tensor in found.tensors.items() if name.endswith(".up")]
    assert min(ups) > 1e-4, "every expert should have learned"


@pytest.mark.slow
@pytest.mark.parametrize("knobs", [{}, {"features": "coredi"}], ids=["plain", "coredi"])
def test_checkpointing_and_the_size_of_pieces_change_nothing(tmp_path, knobs):
    with torch.inference_mode():
        model = host_model(tiny_flux())  # two blocks of each kind, so that one may be taken for another
    known = beside(**knobs) if knobs else TWO_STAGES
    plain = train_on_host(model, tmp_path / "a", known)
    twice = train_on_host(model, tmp_path / "b", replace(known, settings=replace(known.settings, checkpointing=True)))
    assert largest_difference(plain, twice) == 0
    whole = train_on_host(model, tmp_path / "c", replace(known, settings=replace(known.settings, micro=0)))
    assert largest_difference(plain, whole) < 1e-4


def test_the_model_is_left_as_it_was(model, tmp_path):
    import comfy.model_management

    before = sample(model, conditioning())
    weights = {name: value.clone() for name, value in model.model.state_dict().items()}
    train_on_host(model, tmp_path)
    assert all(torch.equal(value, weights[name]) for name, value in model.model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.model.modules())
    assert comfy.model_management.in_training is False
    assert not any(parameter.requires_grad for parameter in model.model.parameters())
    assert torch.equal(sample(model, conditioning()), before)


def test_what_was_trained_bends_the_picture_through_the_other_nodes(model, tmp_path):
    from cologen.prw.comfyui.patch import apply_bank

    stage = replace(STAGES[1], iterations=9)
    bank = train_on_host(model, tmp_path, replace(TWO_STAGES, stages=(STAGES[0], stage)))
    applied = apply_bank(model, bank)
    with_expert = sample(applied, add_source(conditioning(), source("ground")))
    without = sample(applied, add_source(conditioning(), source("ground", strength=0.0)))
    assert not torch.equal(with_expert, without)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.bfloat16], ids=["fp8", "bf16"])
def test_small_weights_train_with_a_finite_loss(dtype, tmp_path):
    from cologen.training.monitor.log import LOG_FILE, read_log

    with torch.inference_mode():
        model = host_model(tiny_flux(gain=1.0, **BLOCKS), dtype)
    bank = train_on_host(model, tmp_path, replace(TWO_STAGES, stages=STAGES[:1]))
    assert all(torch.isfinite(tensor).all() for tensor in bank.tensors.values())
    assert all(np.isfinite(line["task"]) for line in read_log(tmp_path / LOG_FILE) if "task" in line)
    assert next(model.model.diffusion_model.parameters()).dtype == dtype


def test_scaled_fp8_weights_train_as_what_they_stand_for(tmp_path):
    import comfy.sd

    stored, plain = {}, {}
    for name, value in tiny_flux(gain=1.0, **BLOCKS).state_dict().items():
        stored[name] = plain[name] = value
        if value.ndim == 2 and "_blocks." in name:
            scale = value.abs().max() / 448
            stored[name] = (value / scale).to(torch.float8_e4m3fn)
            plain[name] = stored[name].float() * scale
            prefix = name.removesuffix("weight")
            stored[f"{prefix}weight_scale"] = scale
            stored[f"{prefix}comfy_quant"] = torch.tensor(list(b'{"format": "float8_e4m3fn"}'), dtype=torch.uint8)
    with torch.inference_mode():
        quantised = comfy.sd.load_diffusion_model_state_dict(stored)
        whole = comfy.sd.load_diffusion_model_state_dict(plain, model_options={"dtype": torch.float32})
    assert hasattr(quantised.model.diffusion_model.single_blocks[0].linear1.weight, "_layout_cls")
    assert largest_difference(train_on_host(quantised, tmp_path / "a"), train_on_host(whole, tmp_path / "b")) < 1e-4


def test_weights_that_share_a_buffer_give_the_same_gradients(model, tmp_path, monkeypatch):
    """As with offloading: every layer's weight is put where the last one's was."""
    import comfy.ops

    plain = train_on_host(model, tmp_path / "a")
    real, room = comfy.ops.cast_bias_weight, torch.empty(1 << 22)
    taken = []

    def cast(module, *args, **kwargs):
        weight, bias, _ = real(module, *args, **kwargs)
        shared = room[: weight.numel()].view(weight.shape)
        shared.data.copy_(weight)
        taken.append(module)
        return shared, bias, ("stream", None, None)

    monkeypatch.setattr(comfy.ops, "cast_bias_weight", cast)
    monkeypatch.setattr(comfy.ops, "uncast_bias_weight", lambda *args: None)
    for module in model.model.modules():
        if hasattr(module, "comfy_cast_weights"):
            module.comfy_cast_weights = True
    shared = train_on_host(model, tmp_path / "b")
    assert taken and largest_difference(plain, shared) == 0


class Cancel(Listener):
    """Someone presses Cancel after so many iterations."""

    def __init__(self, after: int):
        self.left = after

    def on_stage_begin(self, trainer):
        self.trainer = weakref.ref(trainer)

    def on_iteration(self, trainer, step):
        import comfy.model_management

        self.left -= 1
        if self.left == 0:
            comfy.model_management.interrupt_current_processing()


@pytest.mark.parametrize("checkpointing", [False, True])
def test_cancelled_and_queued_again_is_as_if_never_cancelled(model, tmp_path, monkeypatch, checkpointing):
    import comfy.model_management
    from cologen.training.comfyui import training_host as host_training

    curriculum = replace(TWO_STAGES, settings=replace(SETTINGS, checkpointing=checkpointing))
    whole = train_on_host(model, tmp_path / "a", curriculum)

    def cancelled(**options):
        with pytest.raises(comfy.model_management.InterruptProcessingException) as error:
            train_on_host(model, tmp_path / "b", curriculum, **options)
        assert comfy.model_management.in_training is False
        return error

    real, log = host_training.open_weight, tmp_path / "b/log.jsonl"

    def open_weight(module, like):
        """Cancel in the middle of the third iteration's gradient."""
        if torch._C._current_graph_task_id() >= 0 and log.exists() and log.read_text().count("norm") == 2:
            comfy.model_management.interrupt_current_processing()
            comfy.model_management.throw_exception_if_processing_interrupted()
        return real(module, like)

    with monkeypatch.context() as patch:
        patch.setattr(host_training, "open_weight", open_weight)
        cancelled()
    cancel = Cancel(2)
    error = cancelled(listeners=[cancel])  # after an iteration: in the next one's first layer
    assert error and cancel.trainer() is None, "its memory should be free while the error is still there"
    assert largest_difference(train_on_host(model, tmp_path / "b", curriculum), whole) == 0


def test_a_finished_run_is_read_from_disk(model, tmp_path, monkeypatch):
    from cologen.training.comfyui.training_host import TrainingHost

    first = train_on_host(model, tmp_path)
    monkeypatch.setattr(TrainingHost, "training", None)
    assert largest_difference(train_on_host(model, tmp_path), first) == 0


def test_a_stage_whose_expert_is_brought_needs_no_data(model, tmp_path, monkeypatch):
    from cologen.training.comfyui.training_host import TrainingHost

    curriculum = replace(TWO_STAGES, stages=tuple(replace(stage, replay=0.0) for stage in STAGES))
    whole = train_on_host(model, tmp_path / "a", curriculum)
    brought = train_on_host(model, tmp_path / "b", replace(curriculum, stages=curriculum.stages[:1]))
    rest = dict(curriculum=curriculum, given=training_data("ground"), bank=brought)
    assert largest_difference(train_on_host(model, tmp_path / "c", **rest), whole) == 0
    monkeypatch.setattr(TrainingHost, "training", None)  # a finished run does not load the model
    assert largest_difference(train_on_host(model, tmp_path / "c", **rest), whole) == 0
    nothing = dict(curriculum=curriculum, given=training_data("edit"), bank=whole)
    assert largest_difference(train_on_host(model, tmp_path / "d", **nothing), whole) == 0


def test_a_stage_after_a_bank_is_the_curriculum_s_next_stage(model, tmp_path):
    from cologen.training.comfyui.run import extend_curriculum

    whole = train_on_host(model, tmp_path / "a")
    first = train_on_host(model, tmp_path / "b", extend_curriculum(None, STAGES[0], SETTINGS), only="inpaint")
    second = train_on_host(
        model, tmp_path / "c", extend_curriculum(first, STAGES[1], SETTINGS), bank=first, only="ground"
    )
    assert largest_difference(second, whole) == 0
    assert (
        largest_difference(
            train_on_host(
                model, tmp_path / "c", extend_curriculum(first, STAGES[1], SETTINGS), bank=first, only="ground"
            ),
            whole,
        )
        == 0
    )


@pytest.mark.parametrize(
    "curriculum, given, sentence",
    [
        (TWO_STAGES, training_data("inpaint"), "The stage ground needs data of the task ground, there is inpaint: 5"),
        (TWO_STAGES, TrainingData(training_data().encoders, {s.task: with_samples(random_dataset(s.task), context=torch.zeros(5, 5, 8)) for s in STAGES}),
         "rows are 8 wide, the model expects 32 wide: encode the prompt with the text encoder that belongs to this FLUX"),
    ],
)  # fmt: skip
def test_data_that_does_not_fit_is_a_sentence(model, tmp_path, curriculum, given, sentence):
    with pytest.raises((RuntimeError, ValueError), match=sentence):
        train_on_host(model, tmp_path, curriculum, given)


def test_other_data_under_the_same_name_is_a_sentence(model, tmp_path):
    one = replace(TWO_STAGES, stages=(replace(STAGES[0], iterations=1),))
    train_on_host(model, tmp_path, one)
    more = TrainingData(training_data().encoders, {"inpaint": random_dataset("inpaint", 6)})
    other = TrainingData(
        training_data().encoders, {"inpaint": replace(training_data().datasets["inpaint"], pixel_hash="other")}
    )
    with pytest.raises(RuntimeError, match="began with other data: give this one another name"):
        train_on_host(model, tmp_path, one, other)
    with pytest.raises(RuntimeError, match="began with other data: give this one another name"):
        train_on_host(model, tmp_path, one, more)
    (tmp_path / "run.json").unlink()
    with pytest.raises(RuntimeError, match="but no run.json .* or give this training another name as run"):
        train_on_host(model, tmp_path, one, other)
    for path in tmp_path.rglob("*.safetensors"):
        path.unlink()
    train_on_host(model, tmp_path, one, other)  # no run began


def test_other_data_that_a_stage_replays_is_a_sentence(model, tmp_path):
    def given(pixels):
        return TrainingData(
            training_data().encoders,
            {**training_data().datasets, "inpaint": replace(training_data().datasets["inpaint"], pixel_hash=pixels)},
        )

    bank = train_on_host(model, tmp_path / "first", replace(TWO_STAGES, stages=STAGES[:1]))
    for replay in (0.0, 0.5):
        second = replace(TWO_STAGES, stages=(STAGES[0], replace(STAGES[1], iterations=2, replay=replay)))
        train_on_host(model, tmp_path / f"{replay}", second, given("one"), bank=bank, only=STAGES[1].name)
        if replay:
            with pytest.raises(RuntimeError, match="began with other data"):
                train_on_host(model, tmp_path / f"{replay}", second, given("other"), bank=bank, only=STAGES[1].name)
        else:
            train_on_host(model, tmp_path / f"{replay}", second, given("other"), bank=bank, only=STAGES[1].name)


def test_models_that_cannot_be_trained_are_a_sentence(model, tmp_path):
    model.injections = {"bypass": []}
    with pytest.raises(ValueError, match="adapters in bypass mode"):
        train_on_host(model, tmp_path)


# data


def read(folder="mine", task="edit", count=0, previous=None, **changes):
    from cologen.nodes.training_data import CoLoGenTrainingData

    knobs = dict(vae=TinyVae(), clip=TinyClip(), source="folder", folder=folder, task=task, size=64, count=count)
    with torch.inference_mode():
        return CoLoGenTrainingData.execute(**{**knobs, "cut_seed": 0, "data": previous, **changes})


def test_a_folder_becomes_lessons_that_add_up(folders):
    save_pairs(folders / "input/cologen/mine")
    out = read()
    found = out.result[0]
    assert "edit: 3" in str(out.ui.as_dict())
    one = found.datasets["edit"].samples
    assert one.prompts == ("picture 0", "picture 1", "picture 2")
    assert one.target.shape == one.source.shape == (3, 16, 8, 8) and not torch.equal(one.target, one.source)
    assert one.context.shape == (3, 5, TEXT) and not one.target.is_inference()
    both = read(task="inpaint", count=7, previous=found).result[0]
    assert str(both) == "edit: 3, inpaint: 7"
    assert both.datasets["inpaint"].samples.prompts == tuple(f"picture {i}" for i in (0, 0, 0, 1, 1, 2, 2))
    assert len({tensor.sum().item() for tensor in both.datasets["inpaint"].samples.source}) == 7, "holes should differ"
    assert str(read(previous=found).result[0]) == "edit: 6"
    holes = [read(task="inpaint", cut_seed=seed).result[0].datasets["inpaint"].pixel_hash for seed in (0, 0, 1)]
    assert holes[0] == holes[1] != holes[2]


def test_what_is_found_broken_while_it_is_read_is_said(folders):
    folder = folders / "input/cologen/mine"
    save_pairs(folder, 4)
    whole = (folder / "p1.source.png").read_bytes()
    (folder / "p1.source.png").write_bytes(whole[: len(whole) // 2])
    said = read().ui.as_dict()["text"][0]
    assert said.startswith("edit: 4\np1 is left out: ") and said.count("\n") == 1


def test_maps_that_a_folder_lacks_are_drawn_and_the_report_says_by_what(model, folders, tmp_path, monkeypatch):
    import folder_paths

    folder = folders / "input/cologen/mine"
    save_pairs(folder)
    for i in range(3):
        (folder / f"p{i}.source.png").unlink()
    with pytest.raises(ValueError, match="p0: there is no p0.source.png"):
        read(task="control")
    networks = tmp_path / "networks"
    networks.mkdir()
    extensions = folder_paths.folder_names_and_paths["detection"][1]
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "detection", ([str(networks)], extensions))
    plain = read(task="control", drawn_map="hed")
    assert "maps are drawn: hed without a network" in str(plain.ui.as_dict())
    pictures = [np.asarray(Image.open(folder / f"p{i}.png")) for i in range(3)]
    wanted = TinyVae().encode(torch.from_numpy(np.stack([hed(one) for one in pictures])).float() / 255)
    assert torch.equal(plain.result[0].datasets["control"].samples.source, wanted.float())
    torch.manual_seed(0)
    write_safetensors(networks / "ControlNetHED.safetensors", HedNetwork().state_dict(), {})
    drawn = read(task="control", drawn_map="hed").result[0]
    assert drawn.datasets["control"].pixel_hash != plain.result[0].datasets["control"].pixel_hash
    stage = replace(STAGES[0], name="control", task="control")
    train_on_host(model, tmp_path / "run", Curriculum(SETTINGS, (stage,)), given=drawn)
    said = "<td>mine</td><td>maps are drawn: hed by ControlNetHED.safetensors</td>"
    assert said in (tmp_path / "run/report.html").read_text()


def test_the_built_in_world_becomes_lessons(folders):
    found = read(source="built-in world", task="ground", count=3).result[0].datasets["ground"].samples
    assert len(found) == 3 and all(found.prompts) and not torch.equal(found.target, found.source)


@pytest.mark.parametrize("folder", ["..", "../../x", "/etc", "a\0b", "out"])
def test_a_folder_that_leads_outside_is_a_sentence(folders, folder):
    (folders / "input/cologen").mkdir()
    (folders / "input/cologen/out").symlink_to(folders)
    with pytest.raises(ValueError, match="leads outside"):
        read(folder)


def test_a_new_picture_is_noticed(folders):
    from cologen.nodes.training_data import CoLoGenTrainingData

    save_pairs(folders / "input/cologen/mine")
    first = CoLoGenTrainingData.fingerprint_inputs(source="folder", folder="mine")
    (folders / "input/cologen/mine/new.txt").write_text("new")
    assert CoLoGenTrainingData.fingerprint_inputs(source="folder", folder="mine") != first
    assert CoLoGenTrainingData.fingerprint_inputs(source="folder", folder="../..") == "../.."


# nodes


def stage_node(model, **changes):
    from cologen.nodes.training import CoLoGenTrainStage

    knobs = dict(
        model=model, data=training_data(), task="inpaint", run="mine", iterations=3, batch=2, rank=4, sample_steps=1
    )
    with torch.inference_mode():
        return CoLoGenTrainStage.execute(**default_inputs(CoLoGenTrainStage, **{**knobs, **changes}))


def test_a_stage_gives_experts_losses_samples_and_usage(model, folders):
    from cologen.nodes.usage_plot import CoLoGenUsagePlot

    bank, losses, samples, features = stage_node(model, sample_every=2).result
    assert features is None
    assert list(bank.info.experts) == ["inpaint"] and bank.info.experts["inpaint"].iterations == 3
    assert len(losses["loss"]) == 3
    assert samples.shape == (2, 64, 3 * 64, 3), "one held-out lesson: source, drawn, target; twice"
    assert (folders / "output/cologen/mine/bank.safetensors").exists()
    bank, losses, *_ = stage_node(model, run="next", task="ground", experts=bank, name="finder").result
    assert list(bank.info.experts) == ["inpaint", "finder"] and bank.info.experts["finder"].task == "ground"
    assert all(line["usage"].keys() == {"inpaint", "finder"} for line in losses["log"] if "usage" in line)
    plots = CoLoGenUsagePlot.execute(losses).result[0]
    assert plots.shape == (3, 360, 560, 3) and all(plot.std() > 0.02 for plot in plots)
    with pytest.raises(ValueError, match="This loss tells nothing of experts"):
        CoLoGenUsagePlot.execute({"loss": [1.0]})


def test_a_finished_stage_goes_on_to_more_iterations_and_names_other_changes(model, folders):
    stage_node(model, iterations=2)
    longer, losses, *_ = stage_node(model, iterations=5).result
    whole = stage_node(model, iterations=5, run="whole").result[0]
    assert largest_difference(longer, whole) == 0 and len(losses["loss"]) == 5
    said = (
        r"settings \(rank was 4, is 2, run_seed was 0, is 1\): set them back, or give this training another name as run"
    )
    with pytest.raises(RuntimeError, match=said):
        stage_node(model, iterations=5, rank=2, run_seed=1)
    with pytest.raises(
        RuntimeError, match="inpaint has 5 iterations behind it, iterations is 4: set it to 5 or more, or give"
    ):
        stage_node(model, iterations=4)


def test_a_stage_routes_tokens_and_lets_sources_follow_the_time(model, folders):
    first = stage_node(model, route="token", source_time="shared").result[0]
    assert first.info.source.time == "shared"
    later = dict(task="ground", run="next", experts=first)
    bank = stage_node(model, **later).result[0]
    assert [router.per for router in bank.info.routers.values()] == ["token", "token"]
    with pytest.raises(ValueError, match="source_time is zero, but the bank's sources have the time shared"):
        stage_node(model, **{**later, "run": "other"}, source_time="zero")


def test_a_stage_adds_to_a_parent_and_takes_its_place(model, folders):
    first = stage_node(model).result[0]
    later = dict(task="ground", run="next", name="boxes", experts=first)
    bank = stage_node(model, **later, parent=" inpaint ").result[0]
    assert bank.info.experts["boxes"].parent == "inpaint" and list(bank.info.routers["boxes"].experts) == ["boxes"]
    assert bank.info.experts["inpaint"] == first.info.experts["inpaint"]
    with pytest.raises(ValueError, match="The stage boxes adds to nobody, but the bank has no such expert"):
        stage_node(model, **{**later, "run": "other"}, parent="nobody")


def test_a_stage_and_a_curriculum_end_by_themselves(model, folders):
    from cologen.nodes.training import CoLoGenTrainCurriculum

    # nothing is lower by 100 %, so two checks are a stage
    bank, losses, *_ = stage_node(
        model, iterations=9, length="auto", check_every=1, standstill=1, tolerance=1.0, usage_band=1.0
    ).result
    assert bank.info.experts["inpaint"].iterations == len(losses["loss"]) == 2
    recipe = "check_every = 1\nstandstill = 1\ntolerance = 1.0\nusage_band = 1.0\n" + RECIPE.replace(
        "100", "5"
    ).replace("200", "5")
    knobs = default_inputs(CoLoGenTrainCurriculum, model=model, data=training_data(), recipe=recipe, sample_steps=1)
    with torch.inference_mode():
        for length, count in (("as recipe", 5), ("auto", 2), ("ahead", 2)):
            given = {**knobs, "run": length.replace(" ", "_"), "budget": "full", "length": length}
            bank = CoLoGenTrainCurriculum.execute(**given).result[0]
            assert bank.info.experts["ground"].iterations == count, length


def dinov2(folder):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    shape = dict(hidden_size=64, num_hidden_layers=1, num_attention_heads=2, image_size=56, patch_size=14)
    transformers.Dinov2Model(transformers.Dinov2Config(**shape)).save_pretrained(folder)
    transformers.BitImageProcessor().save_pretrained(folder)


@pytest.mark.parametrize("features, encoder", [("off", "VAE"), ("auxiliary", "VAE"), ("coredi", "DINO small")])
def test_a_stage_learns_features_as_its_recipe_would(model, folders, monkeypatch, features, encoder):
    import folder_paths
    from cologen.nodes.training import CoLoGenTrainStage
    from cologen.training.comfyui.run import extend_curriculum

    known = folders / "clip_vision"
    dinov2(known / "DINO small")
    (known / "other").mkdir()
    (known / "other/config.json").write_text('{"architectures": ["BertModel"]}')
    (known / "other/model.safetensors").touch()
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "clip_vision", ([str(known)], {".safetensors"}))
    monkeypatch.setattr(folder_paths, "filename_list_cache", {})
    knobs = {one.id: one for one in CoLoGenTrainStage.define_schema().inputs}
    assert knobs["encoder"].options == ["VAE", "DINO small"]
    given = TrainingData(training_data().encoders, {"inpaint": random_dataset("inpaint", 20)})
    knobs = dict(data=given, run_seed=7, rho=0.5, features=features, encoder=encoder)
    found, *_, left = stage_node(model, **knobs).result

    path = str(known / encoder) if encoder != "VAE" else ""
    settings = Settings(rank=4, alpha=64.0, router_rate=1e-3, micro=1, checkpointing=True, encoder=path)
    settings = replace(settings, sample_every=0, validate_every=0, save_every=0)
    stage = Stage(name="inpaint", iterations=3, batch=2, rho=0.5, features=features)
    expected = train_on_host(model, folders / "again", extend_curriculum(None, stage, settings), given, only="inpaint")
    assert largest_difference(found, expected) == 0
    read = Features.open(folders / "again/stages/1-inpaint.features.safetensors") if features == "coredi" else None
    assert (left and left.info) == (read and read.info)
    assert read is None or all(torch.equal(left.tensors[name], tensor) for name, tensor in read.tensors.items())
    assert (folders / "output/cologen/mine/features").exists() == (encoder != "VAE")


RECIPE = """
rank = 4
[[stages]]
name = "inpaint"
iterations = 200
batch = 2
[[stages]]
name = "ground"
iterations = 100
batch = 2
"""


def test_a_recipe_s_text_trains_all_its_stages(model, folders):
    from cologen.nodes.training import CoLoGenTrainCurriculum

    recipe = RECIPE + '\n[encoders]\nt5xxl = "none.safetensors"\n'  # the graph's own encode
    knobs = default_inputs(
        CoLoGenTrainCurriculum, model=model, data=training_data(), recipe=recipe, budget="tiny", sample_steps=1
    )
    with torch.inference_mode():
        bank, losses, samples = CoLoGenTrainCurriculum.execute(**knobs).result
    assert list(bank.info.experts) == ["inpaint", "ground"] and len(losses["loss"]) == 3
    assert samples.shape == (2, 128, 192, 3), "the later stage draws a row for each task"
    for recipe, sentence in [
        ("small", "needs data of the task control"),
        ("rank = 4", "the stages are named"),
        ("/etc/passwd", "cannot be used"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=sentence):
            CoLoGenTrainCurriculum.execute(**{**knobs, "recipe": recipe, "run": "other"})


@pytest.mark.parametrize("run", ["../x", "", "/tmp/x", "a/../../x", "con"])
def test_runs_that_lead_outside_are_a_sentence(model, folders, run):
    with pytest.raises(ValueError, match="cannot be used, expected a name"):
        stage_node(model, run=run)
    assert not list((folders / "output").iterdir())


def test_progress_shows_the_loss_and_the_samples_in_turn(comfy, monkeypatch):
    import comfy.utils
    from cologen.training.comfyui import progress as training_watch

    sent = []
    monkeypatch.setattr(comfy.utils, "PROGRESS_BAR_HOOK", lambda *args, **kwargs: sent.append(args))
    monkeypatch.setattr(training_watch, "PREVIEW_SECONDS", 0.0)
    watch = training_watch.RunProgress(STAGES)
    stage = SimpleNamespace(stage=STAGES[1], iteration=1, finished=False, length=StageLength(STAGES[1], SETTINGS))
    for i in range(3):
        watch.on_iteration(stage, SimpleNamespace(task_loss=1.0 / (i + 1)))
        watch.on_samples(stage, np.zeros((8, 8, 3), dtype=np.uint8))
        stage.iteration += 1
    assert [(value, total) for value, total, _ in sent] == [(4, 6), (5, 6), (6, 6)]
    assert [picture[1].size for _, _, picture in sent] == [(560, 360), (8, 8), (560, 360)]
