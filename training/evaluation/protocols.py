"""PROTOCOLS: the benchmarks of the paper and, for tasks of which it has no table, of our own, and how answers to each are generated and measured. A new one is a row."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ...prw.files.validate import shorten
from ..data.formats.picture_files import BrokenFile
from ..data.sets.refcoco import RefCoco, RefCocoG, RefCocoPlus
from . import benchmarks
from .case import Case, fit_area, fit_square
from .networks import MetricNetworks
from .set_benchmarks import read_inpainting, read_refcoco

ReadCases = Callable[[Path, int, MetricNetworks], Iterable[Case]]
"""Reads cases from a folder as the benchmark is published, maps drawn from photographs at this side, by these networks."""


@dataclass(frozen=True)
class Protocol:
    """A benchmark: where its cases come from, how answers are generated, what is measured, and the paper's figures."""

    title: str
    task: str
    """A row of TASKS."""
    read: ReadCases
    """Reads its cases from a folder."""
    layout: str
    """Names what the folder holds."""
    url: str
    """Where it is published."""
    count: int
    """Cases of the whole benchmark."""
    paper: Mapping[str, tuple[float, str]]
    """The paper's row: metric -> figure, and the table that it stands in. All of these are measured."""
    extra_metrics: tuple[str, ...] = ()
    """Measured beside them: the benchmark's own script has these, or the paper has no row."""
    images_per_case: int = 1
    side: int = 512
    """Pictures have the area of a square of this side; the paper is silent, ControlNet++ and GEdit-Bench say 512."""
    fit: Callable[[tuple[int, ...], int], tuple[int, int]] = fit_area
    """Makes a source's height and width of its own shape and the side."""
    kind: str = ""
    """The kind of control map; empty: none."""
    notes: tuple[str, ...] = field(default=())
    """What to know before comparing."""

    def read_cases(self, root: Path, side: int, networks: MetricNetworks) -> Iterator[Case]:
        """Reads its cases; a list that is not as its makers publish it is one sentence, whatever it makes its reader raise."""
        try:
            for case in self.read(root, side, networks):
                if not isinstance(case.prompt, str):
                    raise TypeError(f"a prompt is {shorten(case.prompt)}, no text")
                yield case
        except (LookupError, TypeError, AttributeError, OverflowError, RecursionError, UnicodeError) as error:
            raise BrokenFile(
                f"{root} cannot be read ({type(error).__name__}: {shorten(error)}), expected {self.layout}: unpack the "
                f"benchmark again."
            ) from None


HUB = "https://huggingface.co/datasets/"
SOURCE = (
    "the paper compares CLIP-I, L1 and DINO with the source, as Emu Edit does; MagicBrush's own script compares with the "
    "reference"
)
CONTROL = "ControlNet++'s script: 512 x 512 by bicubic stretching, four pictures a case, PNG (its first version's JPG cost mIoU)"
OURS = "our choice: the paper has no table for this task"
PHOTO = "FID: ControlNet++'s, each of the four groups against the photographs by clean-fid, and the mean"
EDIT = ("clip_i_source", "clip_out", "l1_source", "dino_source")


def quote_paper(table: str, names: Iterable[str], values: Iterable[float]) -> dict[str, tuple[float, str]]:
    """Makes a protocol's `paper` of one table's figures, in the order of the metrics' names."""
    return {name: (value, table) for name, value in zip(names, values)}


PROTOCOLS = {
    "magicbrush": Protocol(
        "MagicBrush test, single turn",
        "edit",
        benchmarks.read_magicbrush,
        "edit_sessions.json, local_descriptions.json, images/ID/*.png",
        "https://github.com/OSU-NLP-Group/MagicBrush",
        1053,
        quote_paper("Table 2", EDIT, (0.931, 0.301, 0.063, 0.932)),
        extra_metrics=("clip_i", "l1", "dino"),
        notes=(SOURCE, "every turn starts from the true picture before it (all-turn); no turn builds on a drawn one"),
    ),
    "emuedit": Protocol(
        "Emu Edit test",
        "edit",
        benchmarks.read_emuedit,
        "test*.parquet with image, instruction, output_caption",
        HUB + "facebook/emu_edit_test_set",
        3589,
        quote_paper("Table 2", EDIT, (0.866, 0.301, 0.111, 0.843)),
        notes=(
            SOURCE,
            "there are no references; some captions are wrong and taken as they are",
            "the companion set of generations has its two splits' names swapped: this is the one of 3,589",
        ),
    ),
    "dreambench": Protocol(
        "DreamBench, one picture a subject",
        "subject",
        benchmarks.read_dreambench,
        "dataset/prompts_and_classes.txt, dataset/SUBJECT/*.jpg",
        "https://github.com/google/dreambooth",
        750,
        quote_paper("Tables 4 and 7", ("clip_out", "clip_i_photos", "dino_photos"), (0.315, 0.825, 0.714)),
        notes=(
            "our choice, the paper is silent: the first photograph is the source, likeness is the mean over all photographs "
            "of the subject, the prompt has the class's name and no rare token",
            "some tools take DINO ViT-S/8 or DINOv2 here, or multiply CLIP by 100: compare figures of one kind",
        ),
    ),
    "multigen-canny": Protocol(
        "MultiGen-20M, canny",
        "control",
        benchmarks.read_multigen_canny,
        "validation*.parquet with image, text",
        HUB + "limingcv/MultiGen-20M_canny_eval",
        5000,
        {"clip_score": (33.31, "Tables 3 and 6"), "fid": (18.20, "Table 6")},
        images_per_case=4,
        fit=fit_square,
        kind="canny",
        notes=(CONTROL, PHOTO),
    ),
    "multigen-depth": Protocol(
        "MultiGen-20M, depth",
        "control",
        benchmarks.read_multigen_depth,
        "validation*.parquet with image, control_depth, text",
        HUB + "limingcv/MultiGen-20M_depth_eval",
        5000,
        {
            "depth_rmse": (31.79, "Table 3"),
            "depth_ssim": (40.1, "Table 6"),
            "ssim": (40.1, "Table 6"),
            "fid": (19.56, "Table 6"),
        },
        images_per_case=4,
        fit=fit_square,
        kind="depth",
        notes=(
            CONTROL,
            PHOTO,
            "the paper does not say what its SSIM compares, so both readings are measured: the depth of both, by DPT, and the "
            "pictures themselves",
        ),
    ),
    "multigen-lineart": Protocol(
        "MultiGen-20M, line art",
        "control",
        benchmarks.read_multigen_lineart,
        "validation*.parquet with image, text",
        HUB + "limingcv/MultiGen-20M_canny_eval",
        5000,
        {"lines_ms_ssim": (77.96, "Table 3")},
        images_per_case=4,
        fit=fit_square,
        kind="lineart",
        notes=(CONTROL, "SSIM is ControlNet++'s, over several scales"),
    ),
    "ade20k": Protocol(
        "ADE20K validation",
        "control",
        benchmarks.read_ade20k,
        "validation*.parquet with image, control_seg, seg_map, prompt",
        HUB + "limingcv/Captioned_ADE20K",
        2000,
        {"miou_ade20k": (42.82, "Table 3")},
        images_per_case=4,
        fit=fit_square,
        kind="seg",
        notes=(CONTROL, "0, for what is no class, does not count"),
    ),
    "cocostuff": Protocol(
        "COCO-Stuff validation",
        "control",
        benchmarks.read_cocostuff,
        "validation*.parquet with image, control_seg, panoptic_seg_map, prompt",
        HUB + "limingcv/Captioned_COCOStuff",
        5000,
        {"miou_cocostuff": (29.43, "Table 3")},
        images_per_case=4,
        fit=fit_square,
        kind="seg",
        notes=(CONTROL, "labels 0 to 170, 255 does not count"),
    ),
    "gedit": Protocol(
        "GEdit-Bench, full set in English",
        "edit",
        benchmarks.read_gedit,
        "train*.parquet with key, task_type, instruction, instruction_language, input_image_raw",
        HUB + "stepfun-ai/GEdit-Bench",
        606,
        quote_paper("Table 8", ("sc", "pq", "overall"), (8.03, 7.15, 7.31)),
        notes=("the mean of each of the 11 kinds of edits, then of these",),
    ),
    "inpainting": Protocol(
        "Inpainting, COCO-Stuff val2017",
        "inpaint",
        read_inpainting,
        "images/val2017/*.jpg, annotations/val2017/*.png, annotations/captions_val2017.json, annotations/instances_val2017.json",
        "https://github.com/nightrome/cocostuff",
        5000,
        {},
        extra_metrics=("clip_score", "clip_i", "fid", "l1"),
        notes=(
            OURS,
            "holes are drawn as in training (20 % random, 40 % objects, 40 % irregular), the same for every bank; L1 is of what "
            "lies outside the hole, CLIP of the whole picture and the prompt",
        ),
    ),
    **{
        reader.NAME: Protocol(
            f"{title} val, grounding",
            "ground",
            partial(read_refcoco, reader),
            f"{reader.NAME}/instances.json, {reader.NAME}/refs({reader.by}).p, images/mscoco/images/train2014/*.jpg",
            "https://github.com/lichengunc/refer",
            count,
            {},
            extra_metrics=("box_iou", "box_hit"),
            kind="box",
            notes=(
                OURS,
                "the box is read back from the picture; a picture without one counts as 0; phrases that fit two things of a "
                "picture, or are said twice, are left out",
            ),
        )
        for reader, title, count in (
            (RefCoco, "RefCOCO", 10834),
            (RefCocoPlus, "RefCOCO+", 10758),
            (RefCocoG, "RefCOCOg", 4896),
        )
    },
}
