"""Five stages on FLUX.2 in the terminal, from files alone: from memory and from a cache, stopped and gone on."""

import layouts
import pytest
import torch
from cologen.prw.bank.bank import Bank
from cologen.prw.tasks import TASKS
from cologen.training.cli import main as cli
from cologen.training.cli import train
from cologen.training.encoders.flux2 import Flux2Encoders
from flux2_files import TEXT_WIDTH, save_flux2_files
from safetensors.torch import save_file
from stopped_run import StopAt
from tiny import tiny_flux
from tiny_flux2 import tiny_flux2

pytestmark = [pytest.mark.usefixtures("comfy"), pytest.mark.slow]
SETS = {"inpaint": "json-lines", "ground": "json-lines", "control": "json-lines"}
SETS |= {"subject": "subjects200k", "edit": "parquet"}
RECIPE = """
base = "klein.safetensors"
rank = 2
alpha = 4.0
resolution = 32
save_every = 1
sample_every = 2
sample_steps = 1
sample_cfg = 2.0
validate_every = 0
base_weights = "fp8"
[encoders]
qwen3 = "qwen3.safetensors"
vae = "vae.safetensors"
tokens = 64
"""
STAGE = """
[[stages]]
name = "{task}"
data = ["{name}"]
iterations = 2
batch = 2
"""
TABLE = """
[data.{name}]
set = "{name}"
path = "{name}"
examples = 3
"""
PATHS = {"json-lines": layouts.json_lines, "subjects200k": layouts.subjects200k, "parquet": layouts.own_parquet}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder with a tiny klein, its encoders, sets for all tasks and a recipe."""
    folder = save_flux2_files(tmp_path_factory.mktemp("klein"))
    flux = tiny_flux2(context_in_dim=TEXT_WIDTH, depth=1, depth_single_blocks=1)
    save_file(flux.state_dict(), folder / "klein.safetensors")
    save_file(tiny_flux(context_in_dim=TEXT_WIDTH).state_dict(), folder / "flux1.safetensors")
    other = tiny_flux2(context_in_dim=2 * TEXT_WIDTH, depth=1, depth_single_blocks=1)
    save_file(other.state_dict(), folder / "wide.safetensors")
    for name, lay_out in PATHS.items():
        lay_out(folder / name)
    stages = "".join(STAGE.format(task=task, name=SETS[task]) for task in TASKS)
    (folder / "r.toml").write_text(RECIPE + stages + "".join(TABLE.format(name=name) for name in PATHS))
    return folder


@pytest.fixture
def run(files, monkeypatch, capsys):
    monkeypatch.chdir(files)

    def call(*words) -> str:
        code = cli.main([*words, "--device", "cpu"])
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out + said.err

    return call


def read_bank(folder) -> Bank:
    bank = Bank.open(folder / "bank.safetensors")
    assert tuple(bank.info.experts) == tuple(TASKS) and bank.info.base.family == "flux2"
    return bank


def is_equal(one, other) -> bool:
    return all(torch.equal(one.tensors[name], other.tensors[name]) for name in one.tensors)


def test_all_stages_train_from_memory_and_go_on_to_the_bit(run, files, monkeypatch, capsys):
    said = run("train", "r.toml", "--out", "whole")
    assert "activations, about" in said and "base, float8_e4m3fn" in said
    whole = read_bank(files / "whole")
    assert all(part.up.any() for part in whole.expert("inpaint", "double_blocks.0").values())
    assert len(list((files / "whole/samples").iterdir())) == 5
    listeners = train.make_listeners
    monkeypatch.setattr(train, "make_listeners", lambda *given: [*listeners(*given), StopAt("control", 1)])
    assert cli.main(["train", "r.toml", "--out", "parts", "--device", "cpu"]) != 0
    monkeypatch.setattr(train, "make_listeners", listeners)
    assert not (files / "parts/stages/3-control.safetensors").exists()
    run("train", "r.toml", "--out", "parts", "--resume")
    assert is_equal(read_bank(files / "parts"), whole)


def test_a_cache_takes_the_encoders_place(run, files, monkeypatch):
    places = [f"data.{name}.cache=cache" for name in PATHS]
    run("data", "cache", "r.toml", *places, "--padding")
    with monkeypatch.context() as patched:
        patched.setattr(Flux2Encoders, "encode_rows", None)  # no prompt is encoded any more
        run("train", "r.toml", *places, "--out", "cached")
    assert read_bank(files / "cached").info.base.hidden_size == 256
    run("data", "cache", "r.toml", *(f"data.{name}.cache=short" for name in PATHS))
    sizes = [sum(path.stat().st_size for path in (files / name).rglob("*.safetensors")) for name in ("short", "cache")]
    assert sizes[0] < 0.6 * sizes[1], "without padding much of the text is gone"


def test_a_subject_is_trained_too(run, files):
    from cologen.prw.personalization.concept import Concept

    words = ["base=klein.safetensors", "encoders.qwen3=qwen3.safetensors", "encoders.vae=vae.safetensors"]
    words += ["encoders.tokens=64", "subject.photos=json-lines/pictures", "mine.replay=0.0", "mine.iterations=1"]
    words += ["mine.batch=1", "resolution=32", "sample_steps=1", "validate_every=0"]
    run("train", "subject", *words, "--out", "subject")
    concept = Concept.open(files / "subject/mine.safetensors")
    assert concept.vectors.shape == (2, TEXT_WIDTH) and concept.info.base.family == "flux2"


@pytest.mark.parametrize(
    "base, sentence",
    [
        ("flux1", "flux1.safetensors is a FLUX.1, the table [encoders] names those of FLUX.2, expected t5, clip, vae"),
        (
            "wide",
            f"wide.safetensors reads text of width {2 * TEXT_WIDTH}, the text encoder in the table [encoders] gives",
        ),
    ],
)
def test_another_base_s_encoders_are_named(files, monkeypatch, capsys, base, sentence):
    monkeypatch.chdir(files)
    assert cli.main(["train", "r.toml", f"base={base}.safetensors", "--out", f"no-{base}", "--device", "cpu"]) == 1
    assert sentence in capsys.readouterr().err
