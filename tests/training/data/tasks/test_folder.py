"""A folder of one's own: the layout, what stays together, and what is refused."""

import logging
import os
import shutil

import numpy as np
import pytest
from cologen.prw.tasks import TASKS
from cologen.training.data.formats import picture_files as files
from cologen.training.data.tasks.folder import FolderExamples
from PIL import Image, PngImagePlugin

BESIDE = ["ground", "control", "subject", "edit"]


def noise(seed=0, width=40, height=30):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(path, pixels, **options):
    Image.fromarray(pixels).save(path, **options)


def entry(root, name, seed=0, prompt="a cup on the left", source=True, width=40, height=30):
    """A target, its negative as source, and a prompt."""
    pixels = noise(seed, width, height)
    save(root / f"{name}.png", pixels)
    (root / f"{name}.txt").write_text(prompt)
    if source:
        save(root / f"{name}.source.png", 255 - pixels)
    return pixels


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.fixture
def three(tmp_path):
    for i, name in enumerate(("b", "a.1", "c")):
        entry(tmp_path, name, i, f"prompt {name}")
    return tmp_path


@pytest.mark.parametrize("task", TASKS)
def test_names_are_sorted_and_are_the_ids(three, task):
    entry(three, "a", 3, "prompt a")  # as file names, a.1.png comes before a.png
    folder = FolderExamples(three, task, 30)
    examples = [folder.example(i, rng()) for i in range(len(folder))]
    assert [example.id for example in examples] == ["a", "a.1", "b", "c"]
    assert [example.prompt for example in examples] == ["prompt a", "prompt a.1", "prompt b", "prompt c"]
    for example in examples:
        assert example.task == task and example.source.shape == example.target.shape == (30, 30, 3)
    assert folder.skipped == {}
    for index in (-1, 4):
        with pytest.raises(IndexError, match="which has 4"):
            folder.example(index, rng())


@pytest.mark.parametrize("task", ["ground", "control", "edit"])
def test_source_and_target_are_cropped_and_mirrored_alike(tmp_path, task):
    pixels = entry(tmp_path, "a")
    folder, places = FolderExamples(tmp_path, task, 30, flip=0.5), set()
    for seed in range(40):
        example = folder.example(0, rng(seed))
        assert np.array_equal(example.source, 255 - example.target)
        flip = example.prompt.endswith("right")
        straight = example.target[:, ::-1] if flip else example.target
        (x,) = [x for x in range(11) if np.array_equal(straight, pixels[:, x : x + 30])]
        places.add((x, flip))
    assert len({x for x, _ in places}) > 5 and {flip for _, flip in places} == {False, True}


def test_a_subject_is_cropped_by_itself(tmp_path):
    pixels = entry(tmp_path, "a")
    save(tmp_path / "a.source.png", noise(5, 30, 50))
    folder, differs = FolderExamples(tmp_path, "subject", 30), False
    for seed in range(10):
        example = folder.example(0, rng(seed))
        (x,) = [x for x in range(11) if np.array_equal(example.target, pixels[:, x : x + 30])]
        (y,) = [y for y in range(21) if np.array_equal(example.source, noise(5, 30, 50)[y : y + 30])]
        differs |= x != y
    assert differs


@pytest.mark.parametrize("task", TASKS)
def test_equal_seeds_give_equal_examples_and_the_centre_needs_none(three, task):
    a, b, c = (FolderExamples(three, task, 24, flip=0.5).example(1, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(a.source, b.source) and np.array_equal(a.target, b.target) and a.prompt == b.prompt
    assert not np.array_equal(a.source, c.source)
    centred = [FolderExamples(three, task, 30, centre=True).example(1, rng(seed)) for seed in (1, 2)]
    for example in centred:
        assert np.array_equal(example.target, noise(0)[:, 5:35]) and example.prompt == "prompt b"


def test_a_masks_white_is_the_hole(tmp_path):
    pixels = entry(tmp_path, "a", source=False)
    white = noise(9)[..., 0] < 100
    save(tmp_path / "a.mask.png", white)
    folder = FolderExamples(tmp_path, "inpaint", 30, flip=0.5)
    for seed in range(20):
        example = folder.example(0, rng(seed))
        straight = slice(None, None, -1 if example.prompt.endswith("right") else 1)
        (x,) = [x for x in range(11) if np.array_equal(example.target[:, straight], pixels[:, x : x + 30])]
        expected = np.where(white[:, x : x + 30, None], 128, pixels[:, x : x + 30])
        assert np.array_equal(example.source[:, straight], expected) and example.kind == "mask"


def test_without_a_mask_or_with_none_of_it_in_view_holes_are_random(tmp_path):
    entry(tmp_path, "a", width=90)
    for mask in (None, np.arange(90)[None] * np.ones((30, 1)) >= 85):
        if mask is not None:
            save(tmp_path / "a.mask.png", mask)
        folder, shares, kinds = FolderExamples(tmp_path, "inpaint", 30), set(), set()
        for seed in range(20):
            example = folder.example(0, rng(seed))
            hole = (example.source != example.target).any(-1)
            assert hole.any() and (example.source[hole] == 128).all()
            shares.add(hole.mean())
            kinds.add(example.kind)
        assert len(shares) > 3 and kinds == ({"random"} if mask is None else {"random", "mask"})


def test_a_mask_or_source_of_another_resolution_is_fitted(tmp_path):
    pixels = entry(tmp_path, "a")
    save(tmp_path / "a.source.png", np.kron(255 - pixels, np.ones((2, 2, 1), np.uint8)))
    example = FolderExamples(tmp_path, "edit", 30, centre=True).example(0, rng())
    assert np.corrcoef(example.source.ravel(), 255 - example.target.ravel())[0, 1] > 0.98
    mask = np.zeros((60, 80), bool)
    mask[20:40, 30:60] = True
    save(tmp_path / "a.mask.png", mask)
    example = FolderExamples(tmp_path, "inpaint", 30, centre=True).example(0, rng())
    hole = (example.source != example.target).any(-1)
    expected = np.zeros((30, 40), bool)
    expected[10:20, 15:30] = True
    assert np.array_equal(hole, expected[:, 5:35])


def test_every_suffix_and_spelling_is_read(tmp_path):
    for i, suffix in enumerate((".png", ".JPG", ".jpeg", ".WebP")):
        pixels = np.full((32, 32, 3), 40 * i + 40, np.uint8)
        save(tmp_path / f"{i}{suffix}", pixels)
        save(tmp_path / f"{i}.source{suffix}", 255 - pixels)
        (tmp_path / f"{i}.txt").write_bytes(b"\xef\xbb\xbf caf\xc3\xa9 \n")
    folder = FolderExamples(tmp_path, "edit", 32)
    assert len(folder) == 4
    for i in range(4):
        example = folder.example(i, rng())
        assert example.prompt == "café"
        assert np.abs(example.target.astype(int) - (40 * i + 40)).max() < 3
        assert np.abs(example.source.astype(int) - (215 - 40 * i)).max() < 3


def test_modes_of_pictures_become_rgb(tmp_path):
    ramp = np.arange(32 * 32).reshape(32, 32)
    save(tmp_path / "grey.png", (ramp % 256).astype(np.uint8))
    save(tmp_path / "deep.png", (ramp * 64).astype(np.uint16))
    clear = noise(1, 32, 32)
    alpha = np.where(ramp % 2, 255, 0).astype(np.uint8)
    save(tmp_path / "clear.png", np.dstack([clear, alpha]))
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    save(tmp_path / "turned.png", noise(2, 32, 32), exif=turned)
    for name in ("grey", "deep", "clear", "turned"):
        (tmp_path / f"{name}.txt").write_text("")
    folder = FolderExamples(tmp_path, "inpaint", 32)
    found = {example.id: example.target for example in (folder.example(i, rng()) for i in range(4))}
    assert np.array_equal(found["grey"], np.stack([ramp % 256] * 3, -1))
    assert np.array_equal(found["deep"], np.stack([ramp * 64 // 256] * 3, -1))
    assert np.array_equal(found["clear"], np.where(alpha[..., None], clear, 255))
    assert np.array_equal(found["turned"], np.rot90(noise(2, 32, 32), -1))


def test_other_files_are_left_alone(three):
    (three / "README.txt").write_text("notes")
    (three / ".hidden.png").write_bytes(b"x")
    (three / "table.csv").write_text("1,2")
    (three / "more.png").mkdir()
    folder = FolderExamples(three, "edit", 30)
    assert len(folder) == 3 and folder.skipped == {}


def test_broken_files_are_skipped_and_say_why(three, caplog):
    caplog.set_level(logging.WARNING)
    for name in ("header", "mute", "alone", "binary", "long", "twice", "lost"):
        entry(three, name)
    (three / "header.source.png").write_bytes(b"GIF89a not a png")
    (three / "mute.txt").unlink()
    (three / "alone.source.png").unlink()
    (three / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (three / "long.txt").write_text("x" * (files.MAX_PROMPT + 1))
    save(three / "twice.jpg", noise())
    (three / "lost.png").unlink()
    folder = FolderExamples(three, "edit", 30)
    assert [name for name, _ in folder.entries] == ["a.1", "b", "c"]
    expected = {
        "header": "header.source.png is not a picture",
        "mute": "there is no mute.txt",
        "alone": "there is no alone.source.png",
        "binary": "binary.txt cannot be read as text",
        "long": "long.txt is longer than 65536 bytes",
        "twice": "twice.png has another suffix, but stands for the same",
        "lost": "there is no lost.png",
    }
    assert folder.skipped.keys() == expected.keys()
    for name, why in expected.items():
        assert folder.skipped[name].startswith(why) and f"{name} is left out: {why}" in caplog.text


def test_what_turns_out_broken_when_read_gives_way_to_the_next(three):
    whole = (three / "b.png").read_bytes()
    (three / "b.png").write_bytes(whole[: len(whole) // 2])
    save(three / "c.source.png", noise(0, 40, 40))
    folder = FolderExamples(three, "edit", 30)
    assert len(folder) == 3 and folder.skipped == {}
    assert [folder.example(i, rng()).id for i in range(3)] == ["a.1"] * 3
    assert folder.skipped.keys() == {"b", "c"} and len(folder) == 3
    assert "b.png is damaged" in folder.skipped["b"]
    assert folder.skipped["c"] == "beside a picture of 40 x 30 stands a file of 40 x 40, another aspect"
    (three / "a.1.png").unlink()
    with pytest.raises(ValueError, match="3 pictures, of which none can be used"):
        folder.example(0, rng())


def test_a_mask_without_white_is_broken(tmp_path):
    entry(tmp_path, "a", source=False)
    save(tmp_path / "a.mask.png", np.zeros((30, 40), np.uint8))
    with pytest.raises(ValueError, match="a has no white, which stands for the hole"):
        FolderExamples(tmp_path, "inpaint", 30).example(0, rng())


@pytest.mark.skipif(not hasattr(os, "symlink") or os.name == "nt", reason="links need rights there")
def test_links_that_lead_out_are_refused_and_those_within_are_not(three, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    entry(outside, "secret", 7, "a secret")
    for name in ("picture", "prompt", "source"):
        entry(three, name)
    for link, to in (("picture.png", "secret.png"), ("prompt.txt", "secret.txt"), ("source.source.png", "secret.png")):
        (three / link).unlink()
        (three / link).symlink_to(outside / to)
    (three / "loop.png").symlink_to(three / "loop.png")
    (three / "loop.txt").write_text("")
    (three / "loop.source.png").symlink_to(three / "nothing")
    (three / "within.png").symlink_to("c.png")
    (three / "within.txt").symlink_to("c.txt")
    (three / "within.source.png").symlink_to("c.source.png")
    folder = FolderExamples(three, "edit", 30)
    assert [name for name, _ in folder.entries] == ["a.1", "b", "c", "within"]
    for name, file in (("picture", "picture.png"), ("prompt", "prompt.txt"), ("source", "source.source.png")):
        assert folder.skipped[name] == f"{file} leads out of the folder"
    assert folder.skipped["loop"] == "loop.png leads nowhere"
    (three / "c.png").unlink()
    (three / "c.png").symlink_to(outside / "secret.png")  # after it was checked
    assert folder.example(2, rng()).id == "a.1" and "leads out" in folder.skipped["c"]
    alias = tmp_path_factory.mktemp("alias") / "link"
    alias.symlink_to(three)  # the folder itself may be a link
    assert FolderExamples(alias, "edit", 30).example(0, rng()).id == "a.1"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes there")
def test_a_pipe_is_not_waited_for(three):
    os.mkfifo(three / "d.png")
    os.mkfifo(three / "d.txt")
    save(three / "d.source.png", noise())
    assert FolderExamples(three, "edit", 30).skipped == {"d": "d.txt is not a file"}


def test_a_picture_is_refused_by_its_header_before_it_is_decoded(three, monkeypatch):
    """A bomb: few bytes that claim many pixels."""
    monkeypatch.setattr(files, "MAX_PIXELS", 40 * 30)
    entry(three, "bomb", width=41)
    opened = []
    load = PngImagePlugin.PngImageFile.load
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda self: (opened.append(self.size), load(self))[1])
    folder = FolderExamples(three, "edit", 30)
    assert folder.skipped == {"bomb": "bomb.png has 41 x 30 pixels, expected 1200 at most"}
    assert opened == []
    folder.example(0, rng())
    assert opened and set(opened) == {(40, 30)}


def test_a_real_bomb_does_not_get_far(three, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # PIL's own alarm, which is an error from twice as many on
    with pytest.raises(ValueError, match="none can be used .*a.1.png is not a picture that can be read"):
        FolderExamples(three, "edit", 30)


def test_other_formats_under_a_pictures_name_are_not_opened(three):
    entry(three, "d")
    Image.fromarray(noise()).save(three / "d.tif")
    shutil.move(three / "d.tif", three / "d.png")
    assert FolderExamples(three, "edit", 30).skipped.keys() == {"d"}


@pytest.mark.parametrize("task", TASKS)
def test_a_folder_without_use_says_what_it_should_hold(tmp_path, task):
    source = " and NAME.source.png" if task in BESIDE else ""
    with pytest.raises(FileNotFoundError, match="There is no folder .*nowhere: give one with pictures"):
        FolderExamples(tmp_path / "nowhere", task, 30)
    wanted = f"expected NAME.png with NAME.txt{source} for the task {task}"
    with pytest.raises(ValueError, match=f"has no picture, {wanted}"):
        FolderExamples(tmp_path, task, 30)
    entry(tmp_path, "a", source=False)
    if task in BESIDE:
        with pytest.raises(ValueError, match=rf"none can be used \(a: there is no a.source.png\), {wanted}"):
            FolderExamples(tmp_path, task, 30)
    else:
        assert len(FolderExamples(tmp_path, task, 30)) == 1


def test_tasks_and_sizes_that_do_not_exist_are_refused(three):
    with pytest.raises(ValueError, match="task is 'paint', expected one of 'inpaint'"):
        FolderExamples(three, "paint", 30)
    with pytest.raises(ValueError, match="size is 0, expected 16 to 8192"):
        FolderExamples(three, "edit", 0)
