"""Every metric against something written apart from it: formulas in numpy, scipy, scikit-image, transformers' own forward."""

import hashlib
import json
import os
from pathlib import Path

import numpy as np
import pack  # noqa: F401
import pytest
import torch
import torch.nn.functional as F
from cologen.training.evaluation import distance, fid, judge
from cologen.training.evaluation.case import Case
from cologen.training.evaluation.depth import DepthNetwork, stretch
from cologen.training.evaluation.embeddings import Clip, Dino, cosine
from cologen.training.evaluation.fid import Inception, frechet_distance
from cologen.training.evaluation.judge import LocalJudge, Marks, average_groups, load_marks, parse_lowest_mark
from cologen.training.evaluation.lines import LineNetwork
from cologen.training.evaluation.measure import measure
from cologen.training.evaluation.metrics import METRICS, Answer
from cologen.training.evaluation.networks import (
    CHECKPOINTS,
    MetricNetworks,
    MetricUnavailable,
    import_library,
    open_network,
)
from cologen.training.evaluation.segmentation import Segmenter, compute_miou_percent, count_overlap
from PIL import Image
from tiny_networks import (
    tiny_clip,
    tiny_depth,
    tiny_dino,
    tiny_inception,
    tiny_judge,
    tiny_lines,
    tiny_segmenter,
    tiny_universal_segmenter,
)

SIZES = [(90, 120), (224, 224), (301, 97)]
CLIP_MEAN_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def picture(height=90, width=120, seed=0):
    """Smooth enough to have structure, sharp enough to have edges."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (max(2, height // 16), max(2, width // 16), 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC), int)
    return (smooth + rng.integers(-20, 21, smooth.shape)).clip(0, 255).astype(np.uint8)


def torchvision_view(pixels, side, crop, colours):
    from torchvision import transforms as T

    steps = [T.Resize(side, T.InterpolationMode.BICUBIC), T.CenterCrop(crop), T.ToTensor(), T.Normalize(*colours)]
    return T.Compose(steps)(Image.fromarray(pixels))[None]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """Every network of CHECKPOINTS, tiny."""
    root = tmp_path_factory.mktemp("checkpoints")
    makers = {"clip": tiny_clip, "clip_score": tiny_clip, "dino": tiny_dino, "depth": tiny_depth}
    makers |= {"lines": tiny_lines, "inception": tiny_inception, "judge": tiny_judge}
    makers |= {
        "ade20k": lambda path: tiny_segmenter(path, 5),
        "cocostuff": lambda path: tiny_universal_segmenter(path, 5),
    }
    assert makers.keys() == CHECKPOINTS.keys()
    for key, make in makers.items():
        make(root / CHECKPOINTS[key].name)
    digest = hashlib.sha256((root / CHECKPOINTS["inception"].name).read_bytes()).hexdigest()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fid, "INCEPTION_SHA256", digest)
        yield MetricNetworks(root)


class TestLikeness:
    @pytest.mark.parametrize("size", SIZES)
    def test_clip_is_the_whole_models_own_embedding(self, networks, size):
        from transformers import CLIPModel, CLIPTokenizer

        clip, pixels = networks.load("clip", Clip), picture(*size)
        model = CLIPModel.from_pretrained(networks.path("clip"))
        tokens = CLIPTokenizer.from_pretrained(networks.path("clip"))(["a red dog on 2 rugs"], return_tensors="pt")
        with torch.no_grad():
            whole = model(**tokens, pixel_values=torchvision_view(pixels, 32, 32, CLIP_MEAN_STD))
        assert torch.allclose(clip.embed(pixels), whole.image_embeds[0], atol=2e-6)
        assert torch.allclose(clip.embed_text("a red dog on 2 rugs"), whole.text_embeds[0], atol=2e-6)
        found = cosine(clip.embed(pixels), clip.embed_text("a red dog on 2 rugs"))
        assert found == pytest.approx(float(whole.logits_per_image / model.logit_scale.exp()), abs=2e-6)

    def test_what_does_not_fit_into_clip_is_left_off(self, networks):
        clip = networks.load("clip", Clip)
        assert torch.equal(clip.embed_text("a " * 40), clip.embed_text("a " * 14))
        assert not torch.allclose(clip.embed_text("a " * 13), clip.embed_text("a " * 14))

    @pytest.mark.parametrize("kind", ["ViT", "Dinov2"])
    @pytest.mark.parametrize("size", SIZES)
    def test_dino_is_the_class_token(self, tmp_path, kind, size):
        import transformers

        tiny_dino(tmp_path / "dino", kind)
        model, pixels = getattr(transformers, f"{kind}Model").from_pretrained(tmp_path / "dino"), picture(*size)
        with torch.no_grad():
            token = model(torchvision_view(pixels, 256, 224, IMAGENET)).last_hidden_state[0, 0]
        assert torch.allclose(Dino(tmp_path / "dino", "cpu").embed(pixels), token / token.norm(), atol=2e-6)

    def test_it_remembers_by_what_a_picture_shows(self, networks):
        clip = Clip(networks.path("clip"), "cpu")
        first = clip.embed(picture())
        assert clip.embed(picture()) is first and len(clip.cache) == 1
        assert clip.embed(picture().reshape(120, 90, 3)) is not first


class TestDistance:
    a, b = picture(seed=1), picture(seed=2)

    def test_l1_and_rmse_are_the_loops(self):
        differences = [int(x) - int(y) for x, y in zip(self.a.ravel(), self.b.ravel())]
        assert distance.l1(self.a, self.b) == pytest.approx(sum(map(abs, differences)) / len(differences) / 255)
        assert distance.rmse(self.a, self.b) == pytest.approx(
            (sum(d * d for d in differences) / len(differences)) ** 0.5
        )
        assert distance.l1(self.a, self.a) == distance.rmse(self.a, self.a) == 0

    def test_colour_is_the_distance_in_cielab(self):
        def lab(pixels):
            """The CIE's formulas, from sRGB under D65."""
            values = pixels / 255
            linear = np.where(values > 0.04045, ((values + 0.055) / 1.055) ** 2.4, values / 12.92)
            matrix = [
                [0.4124564, 0.3575761, 0.1804375],
                [0.2126729, 0.7151522, 0.072175],
                [0.0193339, 0.119192, 0.9503041],
            ]
            xyz = linear @ np.array(matrix).T / np.array([0.95047, 1.0, 1.08883])
            f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
            x, y, z = np.moveaxis(f, -1, 0)
            return np.stack((116 * y - 16, 500 * (x - y), 200 * (y - z)), axis=-1)

        expected = np.sqrt(((lab(self.a) - lab(self.b)) ** 2).sum(-1)).mean()
        assert distance.colour_difference(self.a, self.b) == pytest.approx(expected, rel=1e-3)
        black, white = np.zeros((1, 7, 3), np.uint8), np.full((1, 7, 3), 255, np.uint8)
        assert (
            distance.colour_difference(black, white) == pytest.approx(100, rel=1e-3)
            and distance.colour_difference(self.a, self.a) == 0
        )

    @pytest.mark.parametrize("channels", [3, 1])
    def test_ssim_is_scikit_images(self, channels):
        from skimage.metrics import structural_similarity

        a, b = self.a[..., :channels], (self.a // 2 + self.b // 2)[..., :channels]
        # it leaves out a border of half a window, which torchmetrics mirrors
        wide = (np.pad(x / 255, ((5, 5), (5, 5), (0, 0)), "reflect") for x in (a, b))
        how = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, channel_axis=2)
        wanted = structural_similarity(*wide, data_range=1, **how)
        assert distance.ssim(a, b) == pytest.approx(100 * wanted, abs=1e-6)
        assert distance.ssim(a, a) == pytest.approx(100)

    def test_ms_ssim_is_its_formula(self):
        a = picture(180, 200, seed=3)[..., 0]
        b = (a * 0.7 + picture(180, 200, seed=4)[..., 0] * 0.3).astype(np.uint8)
        assert distance.ms_ssim(a, b) == pytest.approx(100 * naive_ms_ssim(a / 255, b / 255), abs=1e-6)
        assert distance.ms_ssim(a, a) == pytest.approx(100)

    def test_ms_ssim_says_what_it_needs(self):
        with pytest.raises(MetricUnavailable, match="120 x 90, MS-SSIM needs 161 pixels"):
            distance.ms_ssim(self.a, self.b)


def naive_ms_ssim(a, b):
    """Wang et al., 2003: contrast and structure at five scales, luminance at the last, there with a mirrored border."""
    window = np.exp(-(np.arange(-5, 6) ** 2) / (2 * 1.5**2))
    window /= window.sum()

    def blur(x):
        for axis in (0, 1):
            x = np.apply_along_axis(lambda row: np.convolve(row, window, "valid"), axis, x)
        return x

    product = 1.0
    for weight, last in zip((0.0448, 0.2856, 0.3001, 0.2363, 0.1333), (False, False, False, False, True)):
        if last:
            a, b = (np.pad(x, 5, "reflect") for x in (a, b))
        mean_a, mean_b = blur(a), blur(b)
        var_a, var_b, both = blur(a * a) - mean_a**2, blur(b * b) - mean_b**2, blur(a * b) - mean_a * mean_b
        part = (2 * both + 0.03**2) / (var_a + var_b + 0.03**2)
        if last:
            part = part * (2 * mean_a * mean_b + 0.01**2) / (mean_a**2 + mean_b**2 + 0.01**2)
        product *= max(part.mean(), 0) ** weight
        height, width = (side // 2 * 2 for side in a.shape)
        a, b = (x[:height, :width].reshape(height // 2, 2, width // 2, 2).mean((1, 3)) for x in (a, b))
    return product


class TestFid:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(60, 7)), rng.normal(0.4, 1.3, (50, 7)) @ rng.normal(size=(7, 7))

    def naive(self, a, b):
        from scipy.linalg import sqrtm

        left, right = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
        root = np.real(sqrtm(left @ right))
        return ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(left + right - 2 * root)

    def test_frechet_is_the_formula_by_scipys_root(self):
        assert frechet_distance(self.a, self.b) == pytest.approx(self.naive(self.a, self.b), rel=1e-8)
        assert frechet_distance(self.a, self.a) == pytest.approx(0, abs=1e-6)

    def test_frechet_is_clean_fids_as_long_as_that_runs(self):
        from cleanfid import fid as clean_fid

        try:
            wanted = clean_fid.frechet_distance(
                self.a.mean(0), np.cov(self.a, rowvar=False), self.b.mean(0), np.cov(self.b, rowvar=False)
            )
        except TypeError:
            pytest.skip("this scipy's root has lost the argument that clean-fid passes")
        assert frechet_distance(self.a, self.b) == pytest.approx(wanted, rel=1e-8)

    def test_fewer_pictures_than_features_are_no_trouble(self):
        few = self.rng.normal(size=(4, 30))
        assert frechet_distance(few, few + 2) == pytest.approx(30 * 4, rel=1e-6)

    def test_features_are_of_pillows_resize_in_floats(self, networks):
        pixels = picture(*SIZES[2])
        planes = [
            Image.fromarray(pixels[..., i].astype(np.float32)).resize((299, 299), Image.BICUBIC) for i in range(3)
        ]
        x = torch.from_numpy(np.stack([np.asarray(plane).clip(0, 255) for plane in planes]))[None]
        wanted = torch.jit.load(networks.path("inception"))(x)[0]
        assert np.allclose(networks.load("inception", Inception).embed(pixels), wanted.detach(), atol=1e-5)

    def test_another_program_is_not_run(self, networks, tmp_path):
        path = tmp_path / CHECKPOINTS["inception"].name
        path.write_bytes(networks.path("inception").read_bytes() + b"more")
        with pytest.raises(
            MetricUnavailable, match="expected NVIDIA's inception-2015-12-05.pt with .*: it is a program"
        ):
            Inception(path, "cpu")
        elsewhere = networks.path("inception").with_name("other.pt")
        elsewhere.write_bytes(networks.path("inception").read_bytes())
        with pytest.raises(MetricUnavailable, match="other.pt has the SHA-256"):
            Inception(elsewhere, "cpu")

    @pytest.mark.slow
    @pytest.mark.long
    def test_it_is_the_mean_over_groups(self, networks, tmp_path):
        answers, features = [], {0: [], 1: [], "real": []}
        inception = Inception(networks.path("inception"), "cpu")
        for i in range(4):
            real = picture(seed=50 + i)
            features["real"].append(inception.embed(real).astype(float))
            for group in (0, 1):
                drawn = picture(seed=60 + 10 * group + i)
                features[group].append(inception.embed(drawn).astype(float))
                path = tmp_path / f"{i}.png"
                answers.append(Answer(Case(str(i), real, "", real), drawn, path, group))
        (score,) = measure(["fid"], answers, networks)
        parts = [self.naive(np.array(features[group]), np.array(features["real"])) for group in (0, 1)]
        assert score.total == pytest.approx(np.mean(parts), rel=1e-5) and score.value_of("0/1") is None


class TestSegmentation:
    def test_mean_iou_is_the_loop(self):
        rng, pairs = np.random.default_rng(1), []
        for _ in range(3):
            found, wanted = rng.integers(0, 4, (2, 9, 11))
            wanted[rng.random(wanted.shape) < 0.2] = 255
            pairs.append((found, wanted))
        shares = []
        for label in range(6):  # nobody has 4 and 5
            both = either = 0
            for found, wanted in pairs:
                for f, w in zip(found.ravel(), wanted.ravel()):
                    both += w != 255 and f == w == label
                    either += w != 255 and label in (f, w)
            shares += [both / either] if either else []
        assert len(shares) == 4
        assert compute_miou_percent([count_overlap(*pair, 6) for pair in pairs]) == pytest.approx(100 * np.mean(shares))

    def test_labels_that_a_network_cannot_know_are_refused(self):
        with pytest.raises(MetricUnavailable, match="go up to 170, the network tells 150 classes apart"):
            count_overlap(np.zeros((2, 2), int), np.array([[170, 255], [0, 1]]), 150)

    def test_classes_are_of_the_enlarged_answer(self, networks):
        from transformers import SegformerForSemanticSegmentation, SegformerImageProcessor

        pixels, folder = picture(), networks.path("ade20k")
        model = SegformerForSemanticSegmentation.from_pretrained(folder).eval()
        given = SegformerImageProcessor.from_pretrained(folder)(pixels, return_tensors="pt").pixel_values
        with torch.no_grad():
            wide = F.interpolate(model(given).logits, pixels.shape[:2], mode="bilinear", align_corners=False)
        found = networks.load("ade20k", Segmenter).predict(pixels)
        assert (found == wide[0].argmax(0).numpy()).all() and len(np.unique(found)) > 1

    def test_classes_of_masks_are_weighed_together(self, networks):
        from transformers import MaskFormerForInstanceSegmentation

        pixels, segmenter = picture(), networks.load("cocostuff", Segmenter)
        model = MaskFormerForInstanceSegmentation.from_pretrained(networks.path("cocostuff")).eval()
        with torch.no_grad():
            out = model(segmenter.processor(pixels, return_tensors="pt").pixel_values)
        classes, masks = out.class_queries_logits.softmax(-1)[0, :, :-1], out.masks_queries_logits.sigmoid()[0]
        planes = torch.einsum("qc,qhw->chw", classes, masks)[None]
        wide = F.interpolate(planes, pixels.shape[:2], mode="bilinear", align_corners=False)
        assert (segmenter.predict(pixels) == wide[0].argmax(0).numpy()).mean() > 0.999  # rounding at borders


class TestMaps:
    def test_depth_is_dpts_answer_in_grey(self, networks):
        from transformers import DPTForDepthEstimation, DPTImageProcessor

        pixels, folder = picture(), networks.path("depth")
        given = DPTImageProcessor.from_pretrained(folder)(pixels, return_tensors="pt").pixel_values
        with torch.no_grad():
            depth = DPTForDepthEstimation.from_pretrained(folder).eval()(given).predicted_depth[0]
        grey = Image.fromarray((depth / depth.max() * 255).byte().numpy())
        wanted = np.asarray(grey.resize((120, 90), Image.Resampling.BILINEAR), int)
        found = networks.load("depth", DepthNetwork).predict(pixels)
        assert abs(found - wanted).max() <= 1 and found.std() > 1

    def test_a_given_depth_is_spread(self):
        assert stretch(np.array([[50, 100], [75, 150]], np.uint8)).tolist() == [[0, 127], [63, 255]]
        assert not stretch(np.full((2, 2), 9, np.uint8)).any()

    @pytest.mark.parametrize("size", [(40, 56), (41, 59)])
    def test_lines_are_the_public_networks(self, networks, size):
        pixels, weights = picture(*size), torch.load(networks.path("lines"), weights_only=True)
        wanted = naive_lines(torch.from_numpy(pixels).movedim(-1, 0)[None] / 255, weights)
        found = networks.load("lines", LineNetwork).predict(pixels)
        assert found.shape == size
        assert abs(found.astype(int) - (wanted[0, 0, : size[0], : size[1]] * 255).byte().numpy()).max() <= 1

    def test_a_file_that_carries_code_is_refused(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return os.mkdir, (str(tmp_path / "ran"),)

        torch.save({"model0.1.weight": Evil()}, tmp_path / "lines.pth")
        with pytest.raises(MetricUnavailable, match=r"lines\.pth does not hold the line drawing network"):
            LineNetwork(tmp_path / "lines.pth", "cpu")
        assert not (tmp_path / "ran").exists()

    def test_line_art_is_compared_white_on_black(self, networks, tmp_path):
        drawn, source = picture(192, 176, 5), picture(192, 176, 6)
        source = np.repeat(networks.load("lines", LineNetwork).predict(source)[..., None], 3, -1)
        answer = Answer(Case("a", source, ""), drawn)
        white = [1 - plane / 255 for plane in (networks.load("lines", LineNetwork).predict(drawn), source[..., 0])]
        assert measure(["lines_ms_ssim"], [answer], networks)[0].total == pytest.approx(
            100 * naive_ms_ssim(*white), abs=1e-5
        )


def naive_lines(x, w):
    """Operation by operation, by the names in the public file."""

    def conv(x, name, pad=0, mode="reflect", **more):
        x = F.pad(x, (pad,) * 4, mode) if pad else x
        return F.instance_norm(F.conv2d(x, w[f"{name}.weight"], w[f"{name}.bias"], **more))

    x = conv(x, "model0.1", 3).relu()
    for i in (0, 3):
        x = conv(x, f"model1.{i}", 1, "constant", stride=2).relu()
    for i in range(3):
        x = x + conv(conv(x, f"model2.{i}.conv_block.1", 1).relu(), f"model2.{i}.conv_block.5", 1)
    for i in (0, 3):
        wide = F.conv_transpose2d(x, w[f"model3.{i}.weight"], w[f"model3.{i}.bias"], 2, 1, 1)
        x = F.instance_norm(wide).relu()
    return F.conv2d(F.pad(x, (3,) * 4, "reflect"), w["model4.1.weight"], w["model4.1.bias"]).sigmoid()


class CountingJudge:
    def __init__(self, name, answers):
        self.name, self.answers, self.asked = name, list(answers), []

    def ask(self, pictures, question):
        self.asked.append((len(pictures), question))
        return self.answers[len(self.asked) - 1]


class TestJudge:
    @pytest.mark.parametrize(
        "answer, mark",
        [
            ('{"score": [8, 6], "reason": "good"}', 6),
            ('```json\n{\n"score" : [9.5, 10],\n"reasoning": "2 cats"}\n```', 9.5),
            ("score: 7", 7),
            ('{"score": [80, 6]}', None),
            ('{"score": []}', None),
            ("I cannot say.", None),
        ],
    )
    def test_the_lowest_mark_counts(self, answer, mark):
        assert parse_lowest_mark(answer) == mark

    def test_marks_are_asked_once_a_judge(self, tmp_path):
        source, drawn = picture(), picture(64, 80)
        first = CountingJudge("a", ['{"score": [8, 4]}', '{"score": [9, 9]}'])
        asked = load_marks(first, tmp_path / "x.png", source, drawn, "make it {blue}")
        assert asked == load_marks(first, tmp_path / "x.png", source, drawn, "make it {blue}") == Marks(4, 9)
        assert asked.overall == 6 and [count for count, _ in first.asked] == [2, 1]
        assert "make it {blue}" in first.asked[0][1] and first.asked[1][1] == judge.QUALITY
        second = CountingJudge("b", ["no idea", '{"score": [9, 9]}'])
        assert load_marks(second, tmp_path / "x.png", source, drawn, "") is None
        assert load_marks(second, tmp_path / "x.png", source, drawn, "") is None and len(second.asked) == 2
        assert json.loads((tmp_path / "x.marks.json").read_text()) == {"judge": "b", "marks": None}

    def test_each_kind_of_edit_counts_alike(self):
        assert average_groups([("a", 2.0), ("a", 4.0), ("b", 9.0)]) == 6

    def test_the_local_judge_answers_as_transformers_does(self, networks):
        from transformers import AutoProcessor, LlavaForConditionalGeneration

        pixels, folder = picture(32, 32), networks.path("judge")
        model, processor = LlavaForConditionalGeneration.from_pretrained(folder), AutoProcessor.from_pretrained(folder)
        given = processor(images=[Image.fromarray(pixels)], text="<image> score : [", return_tensors="pt")
        wanted = model.generate(**given, max_new_tokens=judge.MAX_TOKENS, do_sample=False)[
            0, given.input_ids.shape[1] :
        ]
        found = networks.load("judge", LocalJudge).ask([pixels], "score : [")
        assert found == processor.decode(wanted, skip_special_tokens=True) and found

    def test_pictures_without_marks_are_counted(self, networks, tmp_path):
        case = Case("a", picture(), "blue", extra={"group": "g"})
        (score,) = measure(["sc"], [Answer(case, picture(seed=1), tmp_path / "a.png")], networks)
        assert score.missing + len(score.values) == 1


class TestTable:
    """Rows of METRICS put together what is tested above."""

    def test_answers_are_resized_to_what_they_are_held_against(self, networks):
        drawn, source, reference = picture(64, 64), picture(90, 120, 1), picture(80, 70, 2)
        answer = Answer(Case("a", source, "", reference), drawn)
        as_source, as_reference = (
            np.asarray(Image.fromarray(drawn).resize(x.shape[1::-1])) for x in (source, reference)
        )
        found = [score.total for score in measure(["l1_source", "l1", "rmse"], [answer], networks)]
        assert found[0] == pytest.approx(np.abs(as_source / 255 - source / 255).mean())
        assert found[1] == pytest.approx(np.abs(as_reference / 255 - reference / 255).mean())
        assert found[2] == pytest.approx(((as_reference.astype(float) - reference) ** 2).mean() ** 0.5)

    def test_a_caption_goes_before_an_instruction(self, networks):
        clip, pictures = networks.load("clip", Clip), [picture(seed=i) for i in range(3)]
        cases = [Case(str(i), pictures[0], "make it red", extra={"caption": "a dog"}) for i in range(3)]
        answers = [Answer(*pair, Path(f"{i}.png")) for i, pair in enumerate(zip(cases, pictures))]
        wanted = [float(clip.embed(seen) @ clip.embed_text("a dog")) for seen in pictures]
        out, score = measure(["clip_out", "clip_score"], answers, networks)
        assert out.total == pytest.approx(np.mean(wanted)) and list(out.values.values()) == pytest.approx(wanted)
        # both keys hold the same network here
        assert score.total == pytest.approx(100 * np.mean(np.maximum(wanted, 0)))

    def test_a_subject_is_all_its_photographs(self, networks):
        drawn, photos = picture(), (picture(seed=1), lambda: picture(seed=2))
        answer = Answer(Case("a", photos[0], "", None, {"photos": photos}), drawn)
        dino = networks.load("dino", Dino)
        wanted = np.mean([float(dino.embed(drawn) @ dino.embed(picture(seed=seed))) for seed in (1, 2)])
        assert measure(["dino_photos"], [answer], networks)[0].total == pytest.approx(wanted)

    def test_labels_are_enlarged_without_mixing(self, networks):
        drawn, labels = picture(96, 64), np.arange(24).reshape(6, 4) % 5
        found = networks.load("ade20k", Segmenter).predict(drawn)
        wanted = compute_miou_percent([count_overlap(found, labels.repeat(16, 0).repeat(16, 1), 5)])
        answer = Answer(Case("a", drawn, "", None, {"labels": lambda: labels}), drawn)
        assert measure(["miou_ade20k"], [answer], networks)[0].total == pytest.approx(wanted)

    def test_depth_is_held_against_the_given_map(self, networks):
        drawn, given = picture(80, 80), np.repeat(picture(80, 80, 1)[..., :1], 3, -1)
        found, wanted = networks.load("depth", DepthNetwork).predict(drawn).astype(float), given[..., 0].astype(float)
        wanted = np.floor((wanted - wanted.min()) / (wanted.max() - wanted.min()) * 255)
        (score,) = measure(["depth_rmse"], [Answer(Case("a", given, ""), drawn)], networks)
        assert score.total == pytest.approx(((found - wanted) ** 2).mean() ** 0.5, abs=0.01)

    @pytest.mark.parametrize(
        "name, lack", [("l1", "no picture to compare with"), ("clip_i_photos", "brings no photos")]
    )
    def test_what_the_data_lacks_is_a_sentence(self, networks, name, lack):
        (score,) = measure([name], [Answer(Case("a", picture(), ""), picture())], networks)
        assert lack in score.reason


class TestShelf:
    @pytest.mark.parametrize("name", [name for name, metric in METRICS.items() if metric.network])
    def test_an_absent_checkpoint_is_a_sentence_with_its_name_and_place(self, tmp_path, name):
        case = Case("a", picture(), "blue", picture(), {"photos": (picture(),), "labels": np.zeros((9, 9), int)})
        (score,) = measure([name], [Answer(case, picture())], MetricNetworks(tmp_path / "none"))
        checkpoint = CHECKPOINTS[METRICS[name].network]
        assert np.isnan(score.total) and "\n" not in score.reason
        assert (
            f"There is no {checkpoint.name} in {tmp_path / 'none'}" in score.reason and checkpoint.url in score.reason
        )

    def test_one_that_is_chosen_takes_its_place(self, networks, tmp_path):
        tiny_dino(tmp_path / "other", "Dinov2")
        chosen = MetricNetworks(networks.root, {"dino": tmp_path / "other"})
        assert chosen.load("dino", Dino).network.config.model_type == "dinov2"
        assert chosen.load("clip", Clip).network.config.model_type == "clip"
        with pytest.raises(ValueError, match="--model is 'dinosaur', expected one of"):
            MetricNetworks(networks.root, {"dinosaur": tmp_path})

    def test_an_absent_library_is_a_sentence(self):
        with pytest.raises(MetricUnavailable, match="nowhere is not installed: pip install nowhere"):
            import_library("nowhere.at_all")

    def test_folders_that_are_not_whole_are_a_sentence(self, tmp_path):
        from safetensors.torch import load_file, save_file

        tiny_dino(tmp_path / "dino")
        weights = load_file(tmp_path / "dino/model.safetensors")
        torch.save(weights, tmp_path / "dino/pytorch_model.bin")
        save_file({k: v for k, v in weights.items() if "layernorm." not in k}, tmp_path / "dino/model.safetensors")
        with pytest.raises(
            MetricUnavailable, match=r"dino lacks 2 of its weights \(such as layernorm\.bias\), expected all"
        ):
            open_network(tmp_path / "dino", "AutoModel")
        (tmp_path / "dino/model.safetensors").unlink()
        with pytest.raises(MetricUnavailable, match=r"dino holds pytorch_model.bin, expected model.safetensors"):
            open_network(tmp_path / "dino", "AutoModel")

    def test_what_one_metric_lacks_does_not_stop_the_others(self, tmp_path):
        answers = [
            Answer(Case(str(i), picture(seed=i), "", picture(seed=i + 1)), picture(seed=9), Path(f"{i}.png"))
            for i in range(3)
        ]
        clip, l1 = measure(["clip_i", "l1"], answers, MetricNetworks(tmp_path))
        assert clip.reason and l1.total == pytest.approx(
            np.mean([distance.l1(picture(seed=9), picture(seed=i + 1)) for i in range(3)])
        )
        assert l1.value_of("0/1") == distance.l1(picture(seed=9), picture(seed=2))
