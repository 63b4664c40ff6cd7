"""Control maps: the classical ones are the host's and the training data's, the learned ones are transformers' own."""

import json
import socket

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cologen.training.data.formats.palettes import ADE20K, PALETTES
from cologen.training.data.tasks import control
from cologen.training.data.tasks.skeleton import draw_skeletons, name_points
from PIL import Image
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.usefixtures("comfy")

SIZES = [(1023, 777), (1, 1), (64, 40)]


def pixels(height=64, width=40, images=1, channels=3, seed=0):
    """Soft blobs with some grain, in bytes: every kind of map has something to say about them."""
    g = torch.Generator().manual_seed(seed)
    coarse = F.interpolate(torch.rand(images, channels, 5, 4, generator=g), (height, width), mode="bicubic")
    grain = 0.2 * torch.rand(images, channels, height, width, generator=g)
    return ((coarse + grain).clamp(0, 1) * 255).round().movedim(1, -1).contiguous() / 255


def draw(image, kind, model="auto", low=0.1, high=0.2):
    from cologen.nodes import CoLoGenControlMap

    with torch.inference_mode():
        (found,) = CoLoGenControlMap.execute(image, kind, model, low, high).args
    assert found.dtype == torch.float32 and found.shape == (*image.shape[:3], 3)
    return found


def in_bytes(image):
    return (image * 255).round().byte().numpy()


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """The host's own folders for such models, empty."""
    import folder_paths

    for name in ("geometry_estimation", "detection"):
        (tmp_path / name).mkdir()
        _, extensions = folder_paths.folder_names_and_paths[name]
        monkeypatch.setitem(folder_paths.folder_names_and_paths, name, ([str(tmp_path / name)], extensions))
        monkeypatch.delitem(folder_paths.filename_list_cache, name, raising=False)
    return tmp_path


@pytest.fixture
def offline(monkeypatch):
    """Whoever asks the network for anything fails the test."""

    def refuse(*args, **kwargs):
        pytest.fail(f"the network was asked for {args[1:]}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.mark.parametrize("height, width", [(1023, 777), (3, 3), (64, 40)])
@pytest.mark.parametrize("low, high", [(0.1, 0.2), (0.4, 0.8), (0.3, 0.3)])
def test_canny_is_the_host_s_own(height, width, low, high):
    from comfy_extras.nodes_canny import Canny

    image = pixels(height, width, images=2)
    (expected,) = Canny.execute(image, low, high).args
    found = draw(image, "canny", low=low, high=high)
    assert torch.equal(found, expected)
    assert found.any() or height == 3 or high > 0.2


@pytest.mark.parametrize("kind", ["canny", "lineart", "hed"])
@pytest.mark.parametrize("height, width", SIZES)
def test_classical_maps_are_those_of_the_training_data(kind, height, width):
    image = pixels(height, width, images=4 if height < 100 else 1)
    found = draw(image, kind)
    expected = [getattr(control, kind)(picture) for picture in in_bytes(image)]
    assert np.array_equal(in_bytes(found), np.stack(expected))


@pytest.mark.parametrize("channels", [1, 4])
def test_grey_and_transparent_pictures(channels):
    image = pixels(channels=channels)
    colours = image[..., :3] if channels == 4 else image.expand(-1, -1, -1, 3)
    for kind in ("canny", "lineart", "hed"):
        assert torch.equal(draw(image, kind), draw(colours, kind))


def test_kinds_are_those_of_the_control_node_in_its_order():
    from cologen.nodes import CoLoGenControl, CoLoGenControlMap

    made, taken = (
        next(item for item in cls.define_schema().inputs if item.id == "kind").options
        for cls in (CoLoGenControlMap, CoLoGenControl)
    )
    assert made == taken[: len(made)] == [*control.MAP_DRAWERS, "pose"]


@pytest.mark.parametrize("model", ["dpt", "depth_anything", "metric", "zoe_depth"])
@pytest.mark.parametrize("height, width", SIZES)
def test_depth_is_what_transformers_says(folders, offline, model, height, width):
    """Against its own pipeline; near is white, so a metric depth is turned over."""
    from tiny_maps import DEPTH, save_model
    from transformers import pipeline

    folder = save_model(folders / "geometry_estimation" / model, DEPTH[model])
    image = pixels(height, width)
    if model == "zoe_depth" and height == 1:
        with pytest.raises(ValueError, match="zoe_depth cannot see a picture of 1 x 1 pixels"):
            draw(image, "depth")
        return
    if height == 1:  # transformers' pipeline has no picture for a single point
        assert not draw(image, "depth").any()
        return
    answer = pipeline("depth-estimation", model=str(folder), device="cpu")(Image.fromarray(in_bytes(image)[0]))
    depth = answer["predicted_depth"].reshape(height, width).double()
    if model in ("metric", "zoe_depth"):
        depth = 1 / depth.clamp(min=0.001)
    expected = (depth - depth.min()) / (depth.max() - depth.min())
    found = draw(image, "depth")
    assert (found - expected[None, ..., None]).abs().max() <= 0.51 / 255
    assert found.std() > 0.02


@pytest.mark.slow
@pytest.mark.parametrize("model", ["segformer", "upernet", "mask2former"])
@pytest.mark.parametrize("height, width", SIZES)
def test_segmentation_is_what_transformers_says(folders, offline, model, height, width):
    """Against its own pipeline, which gives a mask for each label."""
    from tiny_maps import SEG, save_model
    from transformers import pipeline

    folder = save_model(folders / "detection" / model, SEG[model])
    image = pixels(height, width)
    segment = pipeline("image-segmentation", model=str(folder), device="cpu")
    answers = segment(Image.fromarray(in_bytes(image)[0]), subtask="semantic")
    palette = PALETTES[segment.model.config.num_labels]
    expected = np.zeros((height, width, 3), np.uint8)
    for answer in answers:
        expected[np.asarray(answer["mask"]) > 0] = palette[int(answer["label"].split()[1])]
    assert height == 1 or len(answers) >= 3
    assert np.array_equal(in_bytes(draw(image, "seg"))[0], expected)


def test_large_segmentations_are_enlarged_from_smaller_ones(folders):
    """150 planes of a picture of 40 megapixels would be 24 GB."""
    from tiny_maps import save_model, segformer

    save_model(folders / "detection/model", segformer)
    image = pixels(100, 2048)
    small = F.interpolate(image.movedim(-1, 1), (50, 1024), mode="nearest").movedim(1, -1)
    found, expected = (in_bytes(draw(one, "seg"))[0] for one in (image, small))
    assert np.array_equal(found, found[::2, ::2].repeat(2, 0).repeat(2, 1)) and found.shape == (100, 2048, 3)
    assert {tuple(colour) for colour in found.reshape(-1, 3)} <= {tuple(colour) for colour in ADE20K}
    assert (found[::2, ::2] == expected).all(-1).mean() > 0.9


def find_people_by_transformers(folder, picture):
    """The persons' boxes, by its own classes: corners within the picture, as left, top, width, height."""
    import transformers as T

    height, width = picture.shape[:2]
    processor = T.RTDetrImageProcessor.from_pretrained(folder)
    with torch.no_grad():
        answer = T.RTDetrForObjectDetection.from_pretrained(folder).eval()(**processor(picture, return_tensors="pt"))
    (found,) = processor.post_process_object_detection(answer, threshold=0.5, target_sizes=[(height, width)])
    assert {0, 1} == set(found["labels"].tolist())
    corners = found["boxes"][found["labels"] == 0].numpy().clip(0, (width, height, width, height))
    return [[float(a), float(b), float(c) - float(a), float(d) - float(b)] for a, b, c, d in corners]


def pose_by_transformers(folder, picture, boxes, experts):
    """Our drawing of what its own classes find in the boxes."""
    import transformers as T

    processor = T.VitPoseImageProcessor.from_pretrained(folder)
    inputs = processor(picture, boxes=[boxes], return_tensors="pt")
    more = dict(dataset_index=torch.zeros(len(boxes), dtype=torch.long)) if experts else {}
    with torch.no_grad():
        answer = T.VitPoseForPoseEstimation.from_pretrained(folder).eval()(**inputs, **more)
    (found,) = processor.post_process_pose_estimation(answer, boxes=[boxes])
    assert len(found) == len(boxes) and all(len(person["scores"]) == 17 for person in found)
    people = [name_points(person["keypoints"].numpy(), person["scores"].numpy(), picture.shape[:2]) for person in found]
    return draw_skeletons(people, picture.shape[:2])


@pytest.mark.parametrize("model", ["vitpose", "vitpose_plus"])
@pytest.mark.parametrize("height, width", [(768, 515), (64, 40)])
@pytest.mark.parametrize("detector", [False, True])
def test_poses_are_what_transformers_says(folders, offline, model, height, width, detector):
    """Without a detector of the whole picture as one person's box, with one of every box that holds a person."""
    import tiny_maps

    folder = tiny_maps.save_model(folders / "detection" / model, getattr(tiny_maps, model))
    image, boxes = pixels(height, width), [[0.0, 0.0, float(width), float(height)]]
    picture = in_bytes(image)[0]
    if detector:
        boxes = find_people_by_transformers(tiny_maps.save_model(folders / "detection/a", tiny_maps.rt_detr), picture)
    expected = pose_by_transformers(folder, picture, boxes, model == "vitpose_plus")
    assert expected.any()
    assert np.array_equal(in_bytes(draw(image, "pose"))[0], expected)


def test_poses_of_pictures_without_people_are_black(folders):
    from tiny_maps import rt_detr, save_model, vitpose

    save_model(folders / "detection/pose", vitpose)
    assert draw(pixels(), "pose").any()
    draw(pixels(1, 1), "pose")
    save_model(folders / "detection/people", rt_detr)
    names = json.loads((folders / "detection/people/config.json").read_text())["id2label"]
    changed(folders / "detection/people", id2label={key: f"{name} lying" for key, name in names.items()})
    assert draw(pixels(), "pose").any()  # it detects no people: as if it were not there
    changed(folders / "detection/people", id2label={"0": "cat", "1": "person"})
    weights = load_file(folders / "detection/people/model.safetensors")
    for name in weights:
        if "class_embed" in name and name.endswith("bias"):
            weights[name] = weights[name] - 100
    save_file(weights, folders / "detection/people/model.safetensors", metadata={"format": "pt"})
    assert not draw(pixels(), "pose").any()


def test_a_detector_may_lack_what_only_training_reads(folders):
    from tiny_maps import rt_detr, save_model, vitpose

    save_model(folders / "detection/pose", vitpose)
    path = save_model(folders / "detection/people", rt_detr) / "model.safetensors"
    whole, weights = draw(pixels(), "pose"), load_file(path)
    kept = {name: tensor for name, tensor in weights.items() if not name.endswith(".num_batches_tracked")}
    assert len(kept) < len(weights)
    save_file(kept, path, metadata={"format": "pt"})
    assert whole.any() and torch.equal(draw(pixels(), "pose"), whole)


def test_a_detector_is_a_part_of_a_pose_s_fingerprint_and_must_be_whole(folders):
    from cologen.nodes import CoLoGenControlMap
    from tiny_maps import rt_detr, save_model, vitpose

    save_model(folders / "detection/pose", vitpose)
    rest = dict(image=None, low_threshold=0.1, high_threshold=0.2)
    before = CoLoGenControlMap.fingerprint_inputs("pose", "auto", **rest)
    people = save_model(folders / "detection/people", rt_detr)
    assert CoLoGenControlMap.fingerprint_inputs("pose", "auto", **rest) != before
    (people / "model.safetensors").write_bytes(b"no")
    with pytest.raises(ValueError, match="people is no model that transformers can open"):
        draw(pixels(), "pose")
    changed(people, backbone="resnet50")  # which would be fetched: as if it were not there
    assert draw(pixels(), "pose").any()
    assert CoLoGenControlMap.fingerprint_inputs("pose", "auto", **rest) == before


def test_batches_are_drawn_one_by_one(folders):
    from tiny_maps import depth_anything, save_model, segformer

    save_model(folders / "geometry_estimation/a", depth_anything)
    save_model(folders / "detection/b", segformer)
    image = pixels(images=4)
    for kind in ("depth", "seg"):
        found = draw(image, kind)
        assert torch.equal(found, torch.cat([draw(one[None], kind) for one in image]))
        assert not torch.equal(found[0], found[1])


def test_cancel_is_heard_between_pictures(monkeypatch):
    import comfy.model_management
    from cologen.nodes import control_map

    drawn = []

    def one(picture):
        drawn.append(picture)
        comfy.model_management.interrupt_current_processing()
        return picture

    monkeypatch.setitem(control_map.MAP_DRAWERS, "lineart", one)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        draw(pixels(images=4), "lineart")
    assert len(drawn) == 1


def test_progress_counts_the_pictures_of_a_batch(monkeypatch):
    import comfy.utils

    seen = []
    monkeypatch.setattr(
        comfy.utils, "PROGRESS_BAR_HOOK", lambda value, total, *rest, **more: seen.append((value, total))
    )
    draw(pixels(images=3), "canny")
    assert seen[-1] == (3, 3)


def test_the_host_has_the_network_while_it_draws_and_not_after(folders, caplog, monkeypatch):
    import comfy.model_management
    from cologen.training.data.tasks.map_networks import DepthModel
    from tiny_maps import dpt, save_model

    save_model(folders / "geometry_estimation/dpt", dpt)
    counts, read = [], DepthModel.read

    def watched(self, *args):
        counts.append(sum(loaded.model.model is self for loaded in comfy.model_management.current_loaded_models))
        return read(self, *args)

    monkeypatch.setattr(DepthModel, "read", watched)
    before = len(comfy.model_management.current_loaded_models)
    draw(pixels(), "depth")
    comfy.model_management.cleanup_models_gc()
    assert counts == [1] and len(comfy.model_management.current_loaded_models) == before
    assert "leak" not in caplog.text


@pytest.mark.slow
def test_the_hed_network_is_the_published_one(folders):
    """Against torchvision's VGG-16, whose convolutions are its blocks, and the naive formula for the rest."""
    from cologen.training.data.tasks.hed_network import open_hed
    from tiny_maps import save_hed
    from torchvision.models import vgg16

    path = folders / "detection/ControlNetHED.safetensors"
    weights = save_hed(path)
    vgg, names = vgg16(), [name for name in weights if "convs" in name and name.endswith("weight")]
    layers = [layer for layer in vgg.features if isinstance(layer, torch.nn.Conv2d)]
    for layer, name in zip(layers, names, strict=True):
        layer.weight.data, layer.bias.data = weights[name], weights[name.replace("weight", "bias")]
    image = pixels(64, 48)
    hidden, edges = image.movedim(-1, 1) * 255 - 110, []
    with torch.no_grad():
        for layer in vgg.features:
            if isinstance(layer, torch.nn.MaxPool2d):
                edges.append(hidden)
            hidden = layer(hidden)
        for number, seen in enumerate(edges, 1):
            weight, bias = (weights[f"block{number}.projection.{part}"] for part in ("weight", "bias"))
            edges[number - 1] = F.interpolate(F.conv2d(seen, weight, bias), (64, 48), mode="bilinear")
        expected = torch.cat(edges).mean(0, keepdim=True)
        assert torch.allclose(open_hed(path).edges(image.movedim(-1, 1) * 255), expected, atol=1e-4)
    found = draw(image, "hed", "ControlNetHED.safetensors")
    assert (found[..., 0] - expected[0].sigmoid()).abs().max() <= 0.51 / 255 and 0.02 < found.std()
    for height, width in SIZES:
        draw(pixels(height, width), "hed", "ControlNetHED.safetensors")


def test_hed_needs_no_network(folders):
    from tiny_maps import save_hed

    save_hed(folders / "detection/ControlNetHED.safetensors")
    image = pixels()
    assert np.array_equal(in_bytes(draw(image, "hed"))[0], control.hed(in_bytes(image)[0]))


def test_found_models_are_offered_by_name(folders):
    from cologen.nodes import CoLoGenControlMap
    from tiny_maps import dpt, save_hed, save_model, segformer

    def offered():
        return next(item for item in CoLoGenControlMap.define_schema().inputs if item.id == "model").options

    assert offered() == ["auto"]
    save_model(folders / "geometry_estimation/Depth", dpt)
    save_model(folders / "detection/more/Seg", segformer)
    save_hed(folders / "detection/ControlNetHED.safetensors")
    save_file({"x": torch.ones(1)}, folders / "geometry_estimation/da3.safetensors")
    assert offered() == ["auto", "Depth", "ControlNetHED.safetensors", "more/Seg"]
    image = pixels()
    assert torch.equal(draw(image, "depth"), draw(image, "depth", "Depth"))
    assert torch.equal(draw(image, "seg"), draw(image, "seg", "more/Seg"))
    assert torch.equal(draw(image, "canny", "Depth"), draw(image, "canny"))


def test_other_weights_are_another_map(folders):
    """The host keeps a node's output for as long as its fingerprint stays."""
    from cologen.nodes import CoLoGenControlMap
    from tiny_maps import depth_anything, dpt, save_model

    save_model(folders / "geometry_estimation/a", dpt)
    rest = dict(image=None, low_threshold=0.1, high_threshold=0.2)
    prints = [CoLoGenControlMap.fingerprint_inputs("depth", model, **rest) for model in ("auto", "a", "auto")]
    assert len(set(prints)) == 1
    save_model(folders / "geometry_estimation/a", depth_anything)
    assert CoLoGenControlMap.fingerprint_inputs("depth", "a", **rest) != prints[0]
    assert CoLoGenControlMap.fingerprint_inputs("canny", "auto", **rest) == ""


def test_first_dpt_files_open_without_the_weights_that_nothing_reads(folders):
    from tiny_maps import dpt, save_model

    folder = save_model(folders / "geometry_estimation/dpt", dpt)
    whole = draw(pixels(), "depth")
    weights = load_file(folder / "model.safetensors")
    kept = {name: tensor for name, tensor in weights.items() if "fusion_stage.layers.0.residual_layer1" not in name}
    assert len(kept) == len(weights) - 4
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    assert torch.equal(draw(pixels(), "depth"), whole)


def changed(folder, file="config.json", **entries):
    path = folder / file
    path.write_text(json.dumps({**json.loads(path.read_text()), **entries}))


def pickled(folder):
    torch.save({}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()


def without_one(folder, name="head.head.0.weight"):
    weights = load_file(folder / "model.safetensors")
    del weights[name]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


NARROWER = dict(fusion_hidden_size=16)
BROKEN = [
    (pickled, "holds pytorch_model.bin, expected model.safetensors .other formats can carry code.: download"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), "is no model that transformers can open"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "is no model that transformers can open"),
    (without_one, "lacks 1 of its weights .such as head.head.0.weight., expected all"),
    (lambda folder: changed(folder, **NARROWER), "is no model that transformers can open"),
    (
        lambda folder: changed(folder, model_type="mine", auto_map={"AutoConfig": "mine.C"}),
        "no model that transformers",
    ),
    (
        lambda folder: changed(folder, backbone="timm/resnet50"),
        "asks for backbone timm/resnet50, which would be fetched",
    ),
    (lambda folder: changed(folder, attn_implementation="kernels-community/x"), "asks for attn_implementation kernels"),
    (
        lambda folder: changed(folder, "preprocessor_config.json", class_info_file="x.json", repo_path="any/names"),
        "preprocessor_config.json of dpt asks for class_info_file x.json, which would be fetched",
    ),
    (lambda folder: (folder / "processor_config.json").write_text("[" * 99999), "is no JSON, expected what belongs"),
    (lambda folder: changed(folder, architectures=["OneFormerForUniversalSegmentation"]), "holds OneFormerForUniv"),
    (lambda folder: changed(folder, architectures=["ViTModel"]), "holds ViTModel, expected a model for depth"),
    (lambda folder: changed(folder, architectures=[]), "holds no config.json of a transformers model"),
    (lambda folder: (folder / "config.json").write_text("[" * 99999), "holds no config.json of a transformers model"),
]


@pytest.mark.parametrize("harm, sentence", BROKEN)
def test_folders_that_cannot_be_trusted_are_a_sentence(folders, offline, harm, sentence):
    from tiny_maps import dpt, save_model

    harm(save_model(folders / "geometry_estimation/dpt", dpt))
    with pytest.raises(ValueError, match=sentence) as told:
        draw(pixels(), "depth", "dpt")
    assert "dpt" in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 400


BROKEN_POSES = [
    (pickled, "holds pytorch_model.bin, expected model.safetensors"),
    (lambda folder: (folder / "preprocessor_config.json").unlink(), "is no model that transformers can open"),
    (lambda folder: (folder / "model.safetensors").write_bytes(b"no"), "is no model that transformers can open"),
    (lambda folder: without_one(folder, "head.conv.bias"), "lacks 1 of its weights .such as head.conv.bias"),
    (lambda folder: changed(folder, backbone="timm/resnet50"), "asks for backbone timm/resnet50, which would be fetch"),
    (lambda folder: changed(folder, architectures=["SuperPointForKeypointDetection"]), "holds SuperPointForKeypointD"),
]


@pytest.mark.parametrize("harm, sentence", BROKEN_POSES)
def test_pose_folders_that_cannot_be_trusted_are_a_sentence(folders, offline, harm, sentence):
    from tiny_maps import save_model, vitpose

    harm(save_model(folders / "detection/pose", vitpose))
    with pytest.raises(ValueError, match=sentence) as told:
        draw(pixels(), "pose", "pose")
    assert "pose" in str(told.value) and "\n" not in str(told.value) and len(str(told.value)) < 400


@pytest.mark.parametrize(
    "kind, model, sentence",
    [
        (
            "depth",
            "auto",
            "no depth model in models/geometry_estimation, .* put https://huggingface.co/depth-anything/",
        ),
        ("depth", "auto", "Render Depth Anything 3 draw depth, too"),
        ("depth", "seg", "seg draws seg, expected a model for depth"),
        ("hed", "seg", "seg draws seg, expected a model for hed"),
        ("depth", "gone", "There is no gone among the models any more"),
        ("hed", "ControlNetHED.safetensors", "is not the network that draws HED, expected the 37 tensors"),
        ("pose", "auto", "no pose model in models/detection, .* put https://huggingface.co/usyd-community/vitpose"),
        ("pose", "seg", "seg draws seg, expected a model for pose"),
        ("pose", "whole", "whole finds 133 points of a person, expected COCO's 17"),
        ("seg", "nine", "nine tells 9 classes apart, expected 150 .ADE20K., 133"),
    ],
)
def test_models_that_are_not_there_or_not_for_it_are_a_sentence(folders, kind, model, sentence):
    from tiny_maps import save_model, segformer, vitpose

    save_model(folders / "detection/seg", segformer)
    if model == "whole":
        save_model(folders / "detection/whole", lambda: vitpose(points=133))
    save_model(folders / "detection/nine", lambda: segformer(9))
    save_file({"norm": torch.ones(1)}, folders / "detection/ControlNetHED.safetensors")
    with pytest.raises(ValueError, match=sentence):
        draw(pixels(), kind, model)


def test_thresholds_the_wrong_way_round_are_a_sentence():
    with pytest.raises(ValueError, match="low_threshold is 0.8, expected at most high_threshold, 0.2: lower it"):
        draw(pixels(), "canny", low=0.8)
