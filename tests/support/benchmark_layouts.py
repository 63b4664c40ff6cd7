"""The paper's benchmarks in little, laid out as their makers publish them; pictures are drawn by code."""

import io
import json
from pathlib import Path

import numpy as np
from layouts import coco_stuff, refcoco
from PIL import Image

SIZE = (48, 64)
LIVE = ("cat", "cat2", "dog", "dog2", "dog3", "dog5", "dog6", "dog7", "dog8")
THINGS = [f"thing{i}" for i in range(21)]
WORDS = "'a {{0}} {{1}} {place} {i}'.format(unique_token, class_token),"


def draw_picture(seed: int, size=SIZE) -> np.ndarray:
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (3, 4, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize(size[::-1], Image.Resampling.BICUBIC))


def encode_png(pixels: np.ndarray) -> dict:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG")
    return {"bytes": buffer.getvalue(), "path": None}


def write_parquet(path: Path, rows: list[dict]) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path)


def magicbrush(root: Path) -> None:
    turns, captions = {}, {}
    for number, count in (("30", 1), ("139", 2)):
        names = [f"{number}-input.png", *(f"{number}-output{i}.png" for i in range(1, count + 1))]
        for i, name in enumerate(names):
            path = root / "images" / number / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(draw_picture(int(number) + i)).save(path)
        turns[number] = [
            {"input": a, "mask": f"{number}-mask{i}.png", "output": b, "instruction": f"edit {i} of {number}"}
            for i, (a, b) in enumerate(zip(names, names[1:]), 1)
        ]
        captions[number] = {name: f"caption of {name}" for name in names}
    (root / "edit_sessions.json").write_text(json.dumps(turns))
    (root / "local_descriptions.json").write_text(json.dumps(captions))


def emuedit(root: Path) -> None:
    def row(seed: int) -> dict:
        words = dict(instruction=f"instruction {seed}", input_caption="before", output_caption=f"after {seed}")
        return dict(image=encode_png(draw_picture(seed)), task="add", split="test", idx=seed, hash=f"h{seed}", **words)

    write_parquet(root / "data/test-00000-of-00001.parquet", [row(i) for i in range(3)])
    write_parquet(root / "data/validation-00000-of-00001.parquet", [row(9)])


def dreambench(root: Path) -> None:
    subjects = {**{name: name.rstrip("0123456789") for name in LIVE}, **{name: "stuffed animal" for name in THINGS}}
    lists = ["\n".join(WORDS.format(place=place, i=i) for i in range(25)) for place in ("on", "wearing")]
    (root / "dataset").mkdir(parents=True)
    table = "\n".join(f"{name},{noun}" for name, noun in subjects.items())
    (root / "dataset/prompts_and_classes.txt").write_text(
        f"Classes\n\nsubject_name,class\n{table}\n\nPrompts\n\nObject Prompts\n\nprompt_list = [\n{lists[0]}\n]\n\n"
        f"Live Subject Prompts\n\nprompt_list = [\n{lists[1]}\n]\n"
    )
    for i, name in enumerate(subjects):
        (root / "dataset" / name).mkdir()
        for j in range(2):
            Image.fromarray(draw_picture(10 * i + j)).save(root / f"dataset/{name}/{j:02}.jpg", quality=95)


def multigen(root: Path) -> None:
    def row(seed: int) -> dict:
        depth = np.repeat(draw_picture(seed)[..., :1], 3, -1)
        return dict(image=encode_png(draw_picture(seed)), control_depth=encode_png(depth), text=f"a picture {seed}")

    write_parquet(root / "data/validation-00000-of-00002.parquet", [row(i) for i in range(9)])
    write_parquet(root / "data/validation-00001-of-00002.parquet", [row(9)])


def draw_labels(seed: int, classes: int, first: int) -> np.ndarray:
    return (
        np.random.default_rng(seed).integers(first, first + classes, (6, 8)).repeat(8, 0).repeat(8, 1).astype(np.uint8)
    )


def ade20k(root: Path) -> None:
    def row(seed: int) -> dict:
        words = dict(prompt=f"a room {seed}", detailed_prompt="a room, in detail", image_path="ADE_val_00000001.jpg")
        maps = dict(control_seg=encode_png(draw_picture(seed + 50)), seg_map=encode_png(draw_labels(seed, 4, 0)))
        return dict(image=encode_png(draw_picture(seed)), **maps, **words)

    write_parquet(root / "data/validation-00000-of-00001.parquet", [row(i) for i in range(2)])


def cocostuff(root: Path) -> None:
    def row(seed: int) -> dict:
        classes = draw_labels(seed, 4, 0)
        classes[:8, :8] = 255
        maps = dict(control_seg=encode_png(draw_picture(seed + 50)), panoptic_seg_map=classes.tolist())
        return dict(image=encode_png(draw_picture(seed)), **maps, prompt=f"a street {seed}")

    write_parquet(root / "data/validation-00000-of-00001.parquet", [row(i) for i in range(2)])


def gedit(root: Path) -> None:
    def row(i: int, language: str) -> dict:
        kind = ("color_alter", "text_change")[i % 2]
        words = dict(
            task_type=kind, key=f"{i:x}{language}", instruction=f"{language} {i}", instruction_language=language
        )
        return dict(
            **words,
            input_image=encode_png(draw_picture(i)),
            input_image_raw=encode_png(draw_picture(i, (96, 128))),
            Intersection_exist=True,
        )

    rows = [row(i, language) for i in range(3) for language in ("en", "cn")]
    write_parquet(root / "data/train-00000-of-00001.parquet", rows)


LAYOUTS = {
    "magicbrush": magicbrush,
    "emuedit": emuedit,
    "dreambench": dreambench,
    "multigen-canny": multigen,
    "multigen-depth": multigen,
    "multigen-lineart": multigen,
    "ade20k": ade20k,
    "cocostuff": cocostuff,
    "gedit": gedit,
    "inpainting": lambda root: coco_stuff(root, split="val2017"),
    "refcoco": refcoco,
    "refcoco+": lambda root: refcoco(root, "refcoco+"),
    "refcocog": lambda root: refcoco(root, "refcocog", "umd"),
}
