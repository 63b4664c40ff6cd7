"""The training nodes train a task that was added from outside."""

import numpy as np
import pytest
import torch
from host_training import BLOCKS, TinyClip, TinyVae, default_inputs
from PIL import Image
from sixth_task import TASK, add_sixth_task
from tiny import host_model, tiny_flux

pytestmark = pytest.mark.usefixtures("comfy")


@pytest.fixture
def there(comfy, tmp_path, monkeypatch):
    import folder_paths

    add_sixth_task(monkeypatch)
    for kind in ("input", "output", "temp"):
        (tmp_path / kind).mkdir()
        monkeypatch.setattr(folder_paths, f"{kind}_directory", str(tmp_path / kind))
    folder, rng = tmp_path / "input/cologen/mine", np.random.default_rng(1)
    folder.mkdir(parents=True)
    for name in "abc":
        for ending in ("", ".source"):
            Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{name}{ending}.png")
        (folder / f"{name}.txt").write_text(f"picture {name}")
    return tmp_path


def read(source, task=TASK):
    from cologen.nodes.training_data import CoLoGenTrainingData

    knobs = dict(vae=TinyVae(), clip=TinyClip(), source=source, folder="mine", task=task, size=64, count=0, cut_seed=0)
    with torch.inference_mode():
        return CoLoGenTrainingData.execute(**knobs).result[0]


def test_the_node_trains_it(there):
    from cologen.nodes.source import CoLoGenSource
    from cologen.nodes.training import CoLoGenTrainStage
    from cologen.nodes.training_data import CoLoGenTrainingData

    for cls in (CoLoGenSource, CoLoGenTrainStage, CoLoGenTrainingData):
        (options,) = [one.options for one in cls.define_schema().inputs if one.id == "task"]
        assert options[-1] == TASK
    with torch.inference_mode():
        model = host_model(tiny_flux(**BLOCKS))
        knobs = dict(model=model, data=read("folder"), task=TASK, run="mine", iterations=1, batch=2, rank=4)
        bank = CoLoGenTrainStage.execute(**default_inputs(CoLoGenTrainStage, **knobs, sample_steps=1)).result[0]
    assert (bank.info.experts[TASK].task, bank.info.experts[TASK].iterations) == (TASK, 1)
    assert (there / "output/cologen/mine/bank.safetensors").exists()


def test_the_built_in_world_says_that_it_has_none_of_it(there):
    with pytest.raises(ValueError, match=f"The built-in world's task is '{TASK}', expected one of 'inpaint'"):
        read("built-in world")
