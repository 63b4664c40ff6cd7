"""The public data sets in their own layouts, small and drawn by code. Every function lays one out and tells what is in it."""

import io
import json
import pickle
import tarfile

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 48, 64
SIZE = (HEIGHT, WIDTH)
BOX = (10, 8, 30, 28)
"""x0, y0, x1, y1 of what is drawn into each picture."""
POLYGON = [10, 8, 30, 8, 30, 28, 10, 28]


def draw_picture(seed: int, size=SIZE) -> np.ndarray:
    """A smooth ground with a plain box: what JPEG leaves nearly as it was."""
    height, width = size
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 3, y * 4, np.full(size, 37 * seed % 256)], -1).clip(0, 255).astype(np.uint8)
    pixels[8:28, 10:30] = (200, 30 * seed % 256, 60)
    return pixels


def box_mask(size=SIZE) -> np.ndarray:
    mask = np.zeros(size, bool)
    mask[8:28, 10:30] = True
    return mask


def encode_picture(pixels: np.ndarray, form: str = "JPEG") -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, form)
    return buffer.getvalue()


def decode_picture(data: bytes) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(data)).convert("RGB"))


def write_file(path, data) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else json.dumps(data).encode())


def ade20k(root, count=3):
    """Class 1 everywhere, class 21 in the box, 0 (other) in the first row."""
    labels = np.ones(SIZE, np.uint8)
    labels[box_mask()] = 21
    labels[0] = 0
    for i in range(1, count + 1):
        write_file(root / f"images/training/ADE_train_{i:08}.jpg", encode_picture(draw_picture(i)))
        write_file(root / f"annotations/training/ADE_train_{i:08}.png", encode_picture(labels, "PNG"))
    names = [
        "Idx\tRatio\tTrain\tVal\tStuff\tName",
        "1\t0.15\t11664\t1172\t1\twall",
        "21\t0.01\t3\t2\t0\tcar, auto, automobile",
    ]
    write_file(root / "objectInfo150.txt", "\n".join(names).encode())
    scenes = [f"ADE_train_{i:08} airport_terminal" for i in range(1, count + 1)]
    write_file(root / "sceneCategories.txt", "\n".join(scenes).encode())
    return labels


def coco_stuff(root, ids=(9, 25, 30), train_ids=False, lists=True, split="train2017"):
    """Stuff "sky-other" (157) everywhere, "dog" (18) in the box, nothing (255) in the first row."""
    labels = np.full(SIZE, 156, np.uint8)
    labels[box_mask()] = 17
    # of the classes up to dog one is unused (12), up to sky eleven are
    saved = np.where(labels == 156, 145, 16).astype(np.uint8) if train_ids else labels.copy()
    labels[0] = saved[0] = 255
    for id in ids:
        write_file(root / f"images/{split}/{id:012}.jpg", encode_picture(draw_picture(id)))
        write_file(
            root / f"annotations/{split}/{id:012}{'_labelTrainIds' if train_ids else ''}.png",
            encode_picture(saved, "PNG"),
        )
    if lists:
        captions = [{"image_id": id, "id": 2 * id + n, "caption": f"dog {id}, {n}"} for id in ids for n in (0, 1)]
        write_file(
            root / f"annotations/captions_{split}.json",
            {"images": [{"id": id} for id in ids], "annotations": captions},
        )
    return labels


def make_annotation(id, image, category, polygon=POLYGON, **more):
    return {"id": id, "image_id": image, "category_id": category, "segmentation": [polygon], "bbox": [0] * 4, **more}


CATEGORIES = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}, {"id": 44, "name": "trash_can"}]


def refcoco(root, name="refcoco", by="unc", splits=("train", "train", "val"), protocol=0):
    """Each picture: a person twice, each called by a phrase, both also "one of them"; and a dog that nobody mentions."""
    other, dog = [40, 8, 60, 8, 60, 20, 40, 20], [2, 30, 12, 30, 12, 44, 2, 44]
    images, annotations, refs = [], [], []
    for image, split in enumerate(splits, 1):
        file = f"COCO_train2014_{image:012}.jpg"
        write_file(root / "images/mscoco/images/train2014" / file, encode_picture(draw_picture(image)))
        images.append({"id": image, "file_name": file, "height": HEIGHT, "width": WIDTH})
        annotations += [make_annotation(10 * image, image, 1), make_annotation(10 * image + 1, image, 1, other)]
        annotations.append(make_annotation(10 * image + 2, image, 18, dog))
        for n, words in enumerate((["left man", "man in red"], ["right man"])):
            said = [{"raw": w.upper(), "sent": w, "sent_id": 1, "tokens": w.split()} for w in [*words, "one of them"]]
            refs.append(
                {
                    "ref_id": len(refs),
                    "ann_id": 10 * image + n,
                    "category_id": 1,
                    "image_id": image,
                    "file_name": f"COCO_train2014_{image:012}_{n}.jpg",  # a trap of the set: no such file
                    "split": split,
                    "sent_ids": [1],
                    "sentences": said,
                }
            )
    write_file(root / name / "instances.json", {"images": images, "annotations": annotations, "categories": CATEGORIES})
    write_file(root / name / f"refs({by}).p", pickle.dumps(refs, protocol))


def lvis(root, version="v1", split="train"):
    """Two pictures with a trash can each; persons of the second are not all marked. One lies among those of val."""
    images, annotations = [], []
    for id, folder in ((5, "train2017"), (6, "val2017" if version == "v1" else "train2017")):
        write_file(root / folder / f"{id:012}.jpg", encode_picture(draw_picture(id)))
        image = {"id": id, "height": HEIGHT, "width": WIDTH, "neg_category_ids": [], "not_exhaustive_category_ids": []}
        if version == "v1":
            image["coco_url"] = f"http://images.cocodataset.org/{folder}/{id:012}.jpg"
        else:
            image["file_name"] = f"COCO_train2014_{id:012}.jpg"  # the name of 2014, the picture of 2017
        images.append(image)
        annotations += [make_annotation(2 * id, id, 44), make_annotation(2 * id + 1, id, 1, [40, 8, 60, 8, 60, 20])]
    images[1]["not_exhaustive_category_ids"] = [1]
    write_file(
        root / f"lvis_{version}_{split}.json", {"images": images, "annotations": annotations, "categories": CATEGORIES}
    )


def write_tar(path, members: dict[str, bytes], mode="w:gz") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))


def journeydb(root, count=3):
    names = [f"./{i % 2:03}/uuid{i}.jpg" for i in range(count)]
    entries = [
        {
            "img_path": name,
            "prompt": f"prompt {i} --ar 3:2",
            "Task1": {},
            "Task2": {"Caption": f"caption {i}"} if i else None,
        }
        for i, name in enumerate(names)
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in entries).encode() + b"{broken\n"
    write_tar(root / "data/train/train_anno_realease_repath.jsonl.tgz", {"train_anno_realease_repath.jsonl": lines})
    for shard in (0, 1):
        mine = {name: encode_picture(draw_picture(i)) for i, name in enumerate(names) if i % 2 == shard}
        write_tar(
            root / f"data/train/imgs/{shard:03}.tgz",
            {**mine, f"./{shard:03}/unlisted.jpg": encode_picture(draw_picture(9))},
        )


def multigen(root, kind="depth", count=3):
    lines = []
    for i in range(count):
        write_file(root / f"images/aesthetics_6_plus_0/{i}.jpg", encode_picture(draw_picture(i)))
        control = f"aesthetics_6_plus_group_0_{kind}/{i}.png"
        write_file(
            root / "conditions" / control, encode_picture(draw_picture(i + 50, (24, 32)), "PNG")
        )  # half the size, as there
        lines.append(
            {"source": f"./aesthetics_6_plus_0/{i}.jpg", "prompt": f"prompt {i}", f"control_{kind}": f"./{control}"}
        )
    write_file(
        root / f"json_files/aesthetics_plus_all_group_{kind}_all.json", "\n".join(map(json.dumps, lines)).encode()
    )


def make_cell(pixels, form="JPEG") -> dict:
    """A picture as Hugging Face has it in Parquet."""
    return {"bytes": encode_picture(pixels, form), "path": None}


def write_parquet(path, rows, group=2) -> None:
    import pyarrow
    from pyarrow.parquet import write_table

    path.parent.mkdir(parents=True, exist_ok=True)
    write_table(pyarrow.Table.from_pylist(rows), path, row_group_size=group)


def captioned(root, count=3):
    rows = [
        {
            "image": make_cell(draw_picture(i)),
            "prompt": f"a scene {i}",
            "control_seg": make_cell(draw_picture(i + 90), "PNG"),
            "seg_map": [[1, 2], [3, 4]],
        }
        for i in range(count)
    ]
    write_parquet(root / "data/train-00000-of-00001.parquet", rows)
    write_parquet(root / "data/validation-00000-of-00001.parquet", rows[:1])


def multigen_parquet(root, count=3):
    rows = [
        {
            "image": make_cell(draw_picture(i)),
            "text": f"prompt {i}",
            "control_depth": make_cell(draw_picture(i + 50), "PNG"),
        }
        for i in range(count)
    ]
    write_parquet(root / "data/train-00000-of-00002.parquet", rows[:2])
    write_parquet(root / "data/train-00001-of-00002.parquet", rows[2:])


def draw_composite(seed, tile=512, padding=8) -> np.ndarray:
    """A white sheet with two tiles of one colour each."""
    sheet = np.full((tile + 2 * padding, 2 * (tile + padding), 3), 255, np.uint8)
    sheet[padding : padding + tile, padding : padding + tile] = (seed, 0, 100)
    left = tile + 2 * padding
    sheet[padding : padding + tile, left : left + tile] = (0, seed, 200)
    return sheet


def subjects200k(root, tile=512, padding=8):
    """Good; scored too low; with descriptions that are not valid; not scored; of another collection, good."""

    def row(seed, scores=(5, 5, 5), valid=True, collection="collection_1"):
        names = ("compositeStructure", "objectConsistency", "imageQuality")
        words = {"item": "cup", "description_0": f"cup {seed} here", "description_1": f"cup {seed} there"}
        return {
            "image": make_cell(draw_composite(seed, tile, padding), "PNG"),
            "collection": collection,
            "quality_assessment": None if scores is None else dict(zip(names, scores)),
            "description": {**words, "category": "x", "description_valid": valid},
        }

    rows = [row(1), row(2, (5, 4, 5)), row(3, valid=False), row(4, None), row(5, collection="collection_2")]
    write_parquet(root / "data/train-00000-of-00001.parquet", rows)


def omniedit(root, count=4):
    rows = [
        {
            "omni_edit_id": f"task_{i}",
            "task": ("removal", "style")[i % 2],
            "src_img": make_cell(draw_picture(i)),
            "edited_img": make_cell(draw_picture(i + 20)),
            "edited_prompt_list": [f"short {i}", f"a longer wording {i}"],
            "o_score": 9.0,
        }
        for i in range(count)
    ]
    write_parquet(root / "data/train-00000-of-00001.parquet", rows)


def magicbrush(root, count=3):
    rows = [
        {
            "img_id": str(100 + i // 2),
            "turn_index": 1 + i % 2,
            "source_img": make_cell(draw_picture(i), "PNG"),
            "mask_img": make_cell(draw_picture(i + 10), "PNG"),
            "instruction": f"do {i}",
            "target_img": make_cell(draw_picture(i + 20), "PNG"),
        }
        for i in range(count)
    ]
    write_parquet(root / "data/train-00000-of-00001.parquet", rows)


def folder(root, count=3):
    for i in range(count):
        write_file(root / f"pic{i}.png", encode_picture(draw_picture(i), "PNG"))
        write_file(root / f"pic{i}.source.png", encode_picture(draw_picture(i + 30), "PNG"))
        write_file(root / f"pic{i}.txt", f"prompt {i}".encode())


def json_lines(root, count=3):
    lines = []
    for i in range(count):
        write_file(root / f"pictures/{i}.png", encode_picture(draw_picture(i), "PNG"))
        things = [{"name": f"box {i}", "kind": "box", "mask": [POLYGON]}]
        lines.append({"id": f"line-{i}", "picture": f"pictures/{i}.png", "caption": f"caption {i}", "things": things})
    write_file(root / "train.jsonl", "\n".join(map(json.dumps, lines)).encode())


def own_parquet(root, count=3):
    rows = [
        {
            "id": f"row-{i}",
            "before": make_cell(draw_picture(i)),
            "after": make_cell(draw_picture(i + 5)),
            "instruction": f"do {i}",
        }
        for i in range(count)
    ]
    write_parquet(root / "any.parquet", rows)


def webdataset(root, count=4):
    for shard in (0, 1):
        members = {}
        for i in range(shard, count, 2):
            members |= {
                f"part/{i:04}.jpg": encode_picture(draw_picture(i)),
                f"part/{i:04}.txt": f"caption {i}".encode(),
            }
            members[f"part/{i:04}.json"] = json.dumps({"things": [{"kind": "box", "mask": [POLYGON]}]}).encode()
        write_tar(root / f"{shard:05}.tar", members, "w")


LAYOUTS = {
    "ade20k": [ade20k, captioned],
    "coco-stuff": [coco_stuff, lambda root: coco_stuff(root, train_ids=True), captioned],
    "journeydb": [journeydb],
    "refcoco": [refcoco],
    "refcoco+": [lambda root: refcoco(root, "refcoco+")],
    "refcocog": [lambda root: refcoco(root, "refcocog", "umd")],
    "lvis": [lvis, lambda root: lvis(root, "v0.5")],
    "multigen-20m": [lambda root: multigen(root, "canny"), multigen_parquet],
    "multigen-20m-depth": [multigen, multigen_parquet],
    "subjects200k": [subjects200k],
    "omniedit": [omniedit],
    "magicbrush": [magicbrush],
    "folder": [folder],
    "json-lines": [json_lines],
    "parquet": [own_parquet],
    "webdataset": [webdataset],
}
"""Every layout of every set."""
