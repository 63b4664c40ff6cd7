"""Every sentence of the nodes, provoked through a node or the sampler after it: what was found, expected, to do."""

import ast
import re
from pathlib import Path

import pytest
import torch
from cologen.prw.base_model import Base
from cologen.prw.comfyui.conditioning import add_source
from cologen.prw.coredi.features import Features, FeaturesInfo
from cologen.prw.personalization.concept import ConceptInfo
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from cologen.training.subject.trainer import init_concept
from pack import ROOT
from safetensors.torch import save_file
from sampling import sample
from tiny import host_model, source, tiny_bank, tiny_flux
from tiny_features import random_features
from tiny_flux2 import tiny_flux2
from tiny_server import make_tiny_vae

pytestmark = pytest.mark.usefixtures("comfy")

PROMPT = [[torch.zeros(1, 5, 32), {"pooled_output": torch.zeros(1, 16)}]]
MARKED = [[PROMPT[0][0], {**PROMPT[0][1], MARKED_TOKENS: MarkedTokens((1,), 3)}]]
IMAGE, MASK = torch.rand(1, 16, 16, 3), torch.ones(1, 16, 16)
FLUX = dict(unet_name="flux.safetensors", weight_dtype="default", vae_name="vae.safetensors")
NO_TEXT = dict(clip_name1="none", clip_name2="none")
TWO_TEXTS = dict(clip_name1="clip_l.safetensors", clip_name2="t5.safetensors")
CANNY = dict(image=IMAGE, kind="canny", model="auto", low_threshold=0.1, high_threshold=0.2)
HOLE = dict(positive=PROMPT, vae=object(), image=IMAGE, mask=MASK, grow=0, keep_rest=False)
SUBJECT = dict(positive=PROMPT, vae=object(), image=IMAGE)
BACK = dict(drawn=IMAGE, original=IMAGE, mask=MASK, grow=0, feather=0)
OPTIONS = dict(
    strength=1.0, expert_strength=1.0, start=0.0, end=1.0, size=0, position="auto", shift_right=1.0, shift_down=0.0,
    keep_on="gpu", keep_between_runs=False,
)  # fmt: skip
GUIDED = dict(model=object(), positive=PROMPT, switch=0.0, weight=0.5, area=1.0, cfg=1.0)
CONCEPT = dict(conditioning=PROMPT, file="the one that is connected", strength=1.0)
DATA = dict(vae=object(), clip=object(), source="folder", folder="", task="edit", size=64, count=0, cut_seed=0)

STAGE = dict(model=None, data=None, task="edit", run="one", run_seed=0, name="", start="", encoder="dinov2-large")


def bank():
    return tiny_bank(tiny_flux())


def model():
    return host_model(tiny_flux())


BRANCH = dict(
    model=model, auxiliary=MARKED, auxiliary_seed=1, strength=0.0, end=0.5, first_block=0, last_block=56,
    blend_sources=False,
)  # fmt: skip


def branched():
    from cologen.nodes import CoLoGenDualBranch

    return CoLoGenDualBranch.execute(**{**BRANCH, "model": model()})[0]


FEATURES = dict(model=model, file="the one that is connected", weight=1.0)


def learned():
    return Features(FeaturesInfo(Base.of(tiny_flux()), task="control"), {})


def learned_more():
    return Features(FeaturesInfo(Base.of(tiny_flux()), task="edit"), {})


def learned_elsewhere():
    return Features(FeaturesInfo(Base(hidden_size=64), task="control"), {})


def woven():
    from cologen.prw.comfyui.patch import apply_bank

    return apply_bank(model(), bank())


def reading():
    from cologen.nodes import CoLoGenFeatures

    return CoLoGenFeatures.execute(woven(), "", 1.0, learned())[0]


def skipping():
    from cologen.nodes import CoLoGenFeatures
    from comfy_extras.nodes_easycache import EasyCacheNode

    guided = CoLoGenFeatures.execute(woven(), "", 1.5, random_features(tiny_flux()))[0]
    return EasyCacheNode.execute(guided, 0.2, 0.1, 0.9, False)[0]


def answered():
    return add_source(PROMPT, source())


def cut_out():
    return [[words, {**options, "area": (4, 8, 4, 0), "strength": 1.0}] for words, options in answered()]


def branched_woven():
    from cologen.nodes import CoLoGenDualBranch

    return CoLoGenDualBranch.execute(**{**BRANCH, "model": woven()})[0]


BOX = dict(x=0, y=0, width=8, height=8)
LOOK = dict(model=woven, conditioning=answered, latent={"samples": torch.ones(1, 16, 8, 8)}, steps=1, source=3)


def with_option(**more):
    ((words, options),) = MARKED
    return [[words, {**options, **more}]]


CASES = [
    ("CoLoGenLoadFlux", {**FLUX, **NO_TEXT, "clip_name2": "t5.safetensors"}, "One of FLUX's two text encoders is none"),
    ("CoLoGenLoadFlux", {**FLUX, **NO_TEXT, "clip_name1": "t5.safetensors"}, "The model is a FLUX.1 with one text encoder"),
    ("CoLoGenLoadFlux", {**FLUX, **TWO_TEXTS, "unet_name": "flux2.safetensors"}, "The model is a FLUX.2 with two text"),
    ("CoLoGenLoadFlux", {**FLUX, **NO_TEXT, "vae_name": "toy world (built in)"}, "The VAE is the toy world's"),
    ("CoLoGenControlMap", {**CANNY, "low_threshold": 0.5}, "low_threshold is 0.5"),
    ("CoLoGenControlMap", {**CANNY, "kind": "depth"}, "There is no depth model in models/geometry_estimation"),
    ("CoLoGenControlMap", {**CANNY, "kind": "depth", "model": "gone"}, "There is no gone among the models"),
    ("CoLoGenControlMap", {**CANNY, "kind": "depth", "model": "seg"}, "seg draws seg, expected a model for depth"),
    ("CoLoGenGround", dict(clip=0, vae=None, image=IMAGE, phrase=" ", form="box", colour="red"), "The phrase is empty"),
    ("CoLoGenInpaint", {**HOLE, "mask": 0 * MASK}, "The mask is empty"),
    ("CoLoGenInpaint", {**HOLE, "mask": MASK[:, :0]}, "The mask has shape (1, 0, "),
    ("CoLoGenInpaint", {**HOLE, "mask": MASK.repeat(3, 1, 1)}, "There are 3 masks for 1 images"),
    ("CoLoGenSubject", {**SUBJECT, "mask": 0 * MASK}, "The mask shows no subject"),
    ("CoLoGenPasteBack", {**BACK, "original": IMAGE.repeat(2, 1, 1, 1)}, "There are 1 drawn pictures for 2 originals"),
    ("CoLoGenEdit", dict(positive=PROMPT, vae=None, image=IMAGE), "There is no VAE, expected FLUX's"),
    ("CoLoGenExpertSchedule", dict(conditioning=PROMPT, windows="0 to 1"), "The conditioning has no source"),
    ("CoLoGenExpertSchedule", dict(conditioning=answered, windows="0 to 0.5, 0.5 to 1"), "There are 2 windows for 1 sources"),
    ("CoLoGenExpertSchedule", dict(conditioning=PROMPT, windows="half"), "A window is 'half'"),
    ("CoLoGenRouting", dict(lean=0.0, expert="", router="", curve="steep"), "The curve is 'steep'"),
    ("CoLoGenSourceOptions", {**OPTIONS, "region": MASK.repeat(2, 1, 1)}, "The region holds 2 masks"),
    ("CoLoGenSourceOptions", {**OPTIONS, "region": 0 * MASK}, "The region is empty"),
    ("CoLoGenSaveExperts", dict(experts=bank, name="../x"), "The name '../x' cannot be used"),
    ("CoLoGenSaveExperts", dict(experts=bank, name="link/x"), "The folder link/x leads outside"),
    ("CoLoGenTrainingData", {**DATA, "folder": "../.."}, "The folder '../..' leads outside"),
    ("CoLoGenTrainingData", {**DATA, "vae": None}, "There is no VAE or no CLIP"),
    ("CoLoGenConceptTokens", CONCEPT, "There is no concept, expected one"),
    ("CoLoGenConceptTokens", {**CONCEPT, "concept": dict(width=8)}, "The prompt's vectors have 32 numbers"),
    ("CoLoGenConceptTokens", {**CONCEPT, "concept": dict(base=Base(hidden_size=64)), "model": "tiny"}, "The MODEL is of another shape"),
    ("CoLoGenFeatures", FEATURES, "There are no features"),
    ("CoLoGenFeatures", {**FEATURES, "features": learned}, "This MODEL has no experts"),
    ("CoLoGenFeatures", {**FEATURES, "features": learned_elsewhere, "model": woven}, "The MODEL is of another shape"),
    ("CoLoGenFeatures", {**FEATURES, "features": learned, "model": reading}, "This MODEL already reads features of control"),
    ("CoLoGenFeatures", {**FEATURES, "features": learned_more, "model": woven}, "The bank on this MODEL has no router for edit"),
    ("KSampler", dict(model=skipping, positive=answered), "EasyCache would take the second call of a step"),
    ("CoLoGenTrainStage", STAGE, "There is no dinov2-large in models/clip_vision"),
    ("CoLoGenUsagePlot", dict(loss={"loss": [1.0]}), "This loss tells nothing of experts"),
    ("CoLoGenMarkedPrompt", dict(clip=None, text="a [dog]"), "There is no CLIP"),
    ("CoLoGenDualBranch", {**BRANCH, "auxiliary": PROMPT}, "The auxiliary prompt has 1 parts and 0 with marked words"),
    ("CoLoGenDualBranch", {**BRANCH, "auxiliary": with_option(hooks=object())}, "The auxiliary prompt has hooks"),
    ("CoLoGenDualBranch", {**BRANCH, "model": branched}, "This MODEL already has two branches"),
    ("CoLoGenDualBranch", {**BRANCH, "first_block": 4}, "The first block is 4"),
    ("KSampler", dict(model=branched, positive=PROMPT), "The prompt of the sampler has no marked words"),
    ("KSampler", dict(model=branched, positive=with_option(area=(4, 8, 4, 0))), "A marked prompt has an area"),
    ("KSampler", dict(model=branched, positive=MARKED, sampler="euler_cfg_pp"), "The sampler is euler_cfg_pp"),
    ("CoLoGenBranchMap", dict(model=branched, latent={}), "There is no run with two branches to show"),
    ("CoLoGenPersonalGuider", {**GUIDED, "area": 0.5}, "The superclass has no marked words"),
    ("CoLoGenPersonalGuider", {**GUIDED, "cfg": 2.0}, "cfg is 2.0 without a negative prompt"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": []}, "There are no boxes"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": BOX, "box_number": 2}, "Box number is 2"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": [[BOX], [BOX]]}, "The boxes are those of 2 pictures"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": [{"x": 1}]}, "The boxes hold something without x, y"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": {**BOX, "width": 0}}, "A box of 0 x 8 pixels is empty"),
    ("CoLoGenSourceOptions", {**OPTIONS, "boxes": BOX, "region": MASK}, "Both region and boxes are connected"),
    ("CoLoGenAttentionMap", LOOK, "The source is 3"),
    ("CoLoGenAttentionMap", {**LOOK, "model": branched_woven}, "The MODEL draws two branches"),
    ("CoLoGenAttentionMap", {**LOOK, "conditioning": PROMPT}, "The conditioning has no source to be read"),
    ("CoLoGenAttentionMap", {**LOOK, "conditioning": cut_out}, "The prompt has an area of the picture"),
    ("CoLoGenAttentionMap", {**LOOK, "latent": {"samples": torch.zeros(1, 16, 8, 8)}}, "The latent is empty"),
    ("CoLoGenBestOf", dict(images=IMAGE, keep=1, by="CLIP-T"), "There is no prompt to rank pictures by"),
    ("CoLoGenBestOf", dict(images=IMAGE, keep=1, by="RMSE", reference=IMAGE, mask=MASK), "Nothing of rmse could be measured"),
    ("CoLoGenEvaluate", dict(results=[IMAGE], prompts=[""]), "There is nothing to compare with"),
    ("CoLoGenEvaluate", dict(results=[IMAGE], prompts=["a\nb"]), "There are 1 results and 2 prompts"),
]  # fmt: skip

ROOMS = ("nodes", "prw/comfyui", "training/comfyui")
ELSEWHERE = {"patch", "check_host", "conditioning", "server", "run", "training_data", "training_host"}
"""Files of the rooms behind the nodes whose sentences other tests provoke."""


def raised() -> dict[str, re.Pattern]:
    """Each raise behind the nodes, and what its sentence looks like; parts that are filled in match anything."""
    found = {}
    paths = (path for room in ROOMS for path in sorted(Path(ROOT, room).rglob("*.py")))
    for path in (path for path in paths if path.parent.name == "nodes" or path.stem not in ELSEWHERE):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Raise) and node.exc is not None:
                text = node.exc.args[0] if isinstance(node.exc, ast.Call) and node.exc.args else node.exc
                parts = text.values if isinstance(text, ast.JoinedStr) else [text]
                fixed = (re.escape(part.value) if isinstance(part, ast.Constant) else ".*" for part in parts)
                found[f"{path.relative_to(ROOT)}:{node.lineno}"] = re.compile("".join(fixed))
    return found


@pytest.fixture(scope="module")
def host(tmp_path_factory, comfy):
    """The host's folders, with a tiny FLUX and its VAE, a model that draws no depth, and a link that leads out."""
    import folder_paths
    from tiny_maps import save_model, segformer

    models = tmp_path_factory.mktemp("models")
    names = ("diffusion_models", "vae", "geometry_estimation", "detection", "cologen")
    with pytest.MonkeyPatch.context() as patch:
        for name in names:
            (models / name).mkdir()
            _, extensions = folder_paths.folder_names_and_paths.get(name, ([], {".safetensors"}))
            patch.setitem(folder_paths.folder_names_and_paths, name, ([str(models / name)], extensions))
            patch.setattr(folder_paths, "filename_list_cache", {})
        save_file(tiny_flux().state_dict(), models / "diffusion_models/flux.safetensors")
        save_file(tiny_flux2().state_dict(), models / "diffusion_models/flux2.safetensors")
        save_file(make_tiny_vae(), models / "vae/vae.safetensors")
        save_model(models / "detection/seg", segformer)
        (models / "cologen/link").symlink_to(models.parent)
        yield models


def provoked(name: str, inputs: dict) -> str:
    import cologen.nodes

    run = sample if name == "KSampler" else getattr(cologen.nodes, name).execute
    inputs = {key: value() if callable(value) else value for key, value in inputs.items()}
    if name == "CoLoGenSaveExperts":
        inputs = {"experts": tiny_bank(tiny_flux()), **inputs}
    if "concept" in inputs:
        info = ConceptInfo(**{"base": Base.of(tiny_flux()), "width": 32, "rank": 2, **inputs["concept"]})
        inputs = {**inputs, "concept": init_concept(info, torch.zeros(2, info.width), 0)}
    if "model" in inputs and name == "CoLoGenConceptTokens":
        inputs = {**inputs, "model": host_model(tiny_flux())}
    with pytest.raises(ValueError) as told:
        run(**inputs)
    return str(told.value)


@pytest.mark.parametrize("name, inputs, beginning", CASES, ids=lambda value: value if isinstance(value, str) else "")
def test_a_mistake_is_told_in_one_sentence(host, name, inputs, beginning):
    sentence = provoked(name, inputs)
    assert sentence.startswith(beginning)
    assert re.fullmatch(r"[^\n]+, expected [^\n]+: [^\n]+\.", sentence), "found, expected, what to do"
    assert not re.search(r"[.!?] [A-Z]", sentence), "one sentence"


def test_no_sentence_of_the_nodes_is_missing_here(host):
    places = raised()
    said = [provoked(name, inputs) for name, inputs, _ in CASES]
    sayers = [[place for place, pattern in places.items() if pattern.fullmatch(sentence)] for sentence in said]
    assert all(len(found) == 1 for found in sayers)
    assert sorted(place for (place,) in sayers) == sorted(places)
