"""samples/: the pictures that were drawn; what cannot be written stops nothing."""

import numpy as np
from cologen.training.monitor.samples import Samples, find_latest
from PIL import Image
from tiny_run import tiny_curriculum, tiny_inputs, tiny_run, tiny_trainer


def test_what_cannot_be_told_stops_nothing_and_is_said_once(tmp_path, caplog):
    (tmp_path / "samples").write_text("in the way")
    recipe = tiny_curriculum(2, sample_every=1, sample_steps=1)
    bank = tiny_run(tmp_path, recipe, listeners=[Samples(tmp_path)]).train()
    assert len(bank.info.experts) == 3
    assert [record.getMessage()[:21] for record in caplog.records] == ["Samples cannot write "]


def test_samples_are_the_pictures_that_were_drawn(tmp_path):
    samples, trainer = Samples(tmp_path), tiny_trainer(tiny_inputs(None, None, None, 0, 1, None).host)
    for trainer.iteration in (9, 10):
        grid = np.random.default_rng(trainer.iteration).integers(0, 256, (8, 24, 3), dtype=np.uint8)
        samples.on_samples(trainer, grid)
    assert sorted(path.name for path in (tmp_path / "samples").iterdir()) == [
        "2-ground-000000009.png",
        "2-ground-000000010.png",
    ]
    with Image.open(find_latest(tmp_path, "ground")) as picture:
        assert np.array_equal(np.asarray(picture), grid)
    assert find_latest(tmp_path, "round") is None and find_latest(tmp_path, "inpaint") is None
