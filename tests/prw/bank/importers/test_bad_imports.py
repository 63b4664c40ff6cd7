"""Files that are not what they claim: five hundred mutations, each a sentence or the whole truth."""

import json
import random

import pytest
import torch
from cologen.prw.bank.edit import merge
from cologen.prw.bank.importers import open_experts
from cologen.prw.files.errors import FileError
from naive_easycontrol import random_file
from safetensors.torch import load, save, save_file

SMALL = dict(double=2, single=1, width=16, rank=2)
FLIPS, REWRITES = 300, 200
FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def whole():
    return save(random_file(**SMALL))


def header_of(data: bytes) -> tuple[dict, bytes]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length]), data[8 + length :]


def joined(header: dict, rest: bytes) -> bytes:
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + rest


def other_key(rng, header):
    key = rng.choice(list(header))
    words = ["attn", "q_loras", "k_loras", "down", "up", "0", "1", "transformer_blocks", "weight", "processor"]
    header[
        key.replace(rng.choice(words), rng.choice(["", "x", "7", "99999", "../../x", "q_loras", "\0", "é" * 50]))
    ] = header.pop(key)


def other_shape(rng, header):
    entry = header[rng.choice(list(header))]
    entry["shape"] = rng.choice([[], [32], [16, 2], [2, 16], [1, 32], [0, 16], [2, -16], [2**40, 2**40], "x", None])


def other_type(rng, header):
    entry = header[rng.choice(list(header))]
    entry["dtype"] = rng.choice(["F64", "I8", "BOOL", "F16", "F8_E4M3", "", 7, "__import__('os')"])


def other_place(rng, header):
    entry = header[rng.choice(list(header))]
    entry["data_offsets"] = [rng.randint(-8, 9000), rng.choice([0, 64, 128, 2**62])]


def less(rng, header):
    del header[rng.choice(list(header))]


def metadata(rng, header):
    header["__metadata__"] = rng.choice([{"cologen": "{}"}, {"cologen": "[" * 10_000}, {"x": 1}, "x", {"a": "b"}])


def checked(path, whole) -> bool:
    """Whether a file opens; if so it must hold the original's numbers, else it is one short sentence."""
    try:
        bank = open_experts(path)
    except FileError as error:
        text = str(error)
        assert "\n" not in text and 20 < len(text) < 400 and text.endswith((".", ")")), text
        return False
    (name,), tensors = bank.info.experts, load(whole)
    assert len(bank.tensors) == len(tensors)
    for key, tensor in tensors.items():
        _, index, _, _, target, _, part, _ = key.replace("_loras", "").split(".")
        kind = "single" if key.startswith("single") else "double"
        assert torch.equal(bank.tensors[f"experts.{name}.{kind}_blocks.{index}.{target}.{part}"], tensor)
    return True


def test_flipped_bits_in_the_header(whole, tmp_path):
    rng, opened = random.Random(0), 0
    length = 8 + int.from_bytes(whole[:8], "little")
    for i in range(FLIPS):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 1, 2, 8])):
            data[rng.randrange(length)] ^= 1 << rng.randrange(8)
        path = tmp_path / f"canny{i}.safetensors"
        path.write_bytes(data)
        opened += checked(path, whole)
    assert opened < FLIPS / 10, "most flips must be noticed"


def test_rewritten_headers(whole, tmp_path):
    rng, opened = random.Random(1), 0
    for i in range(REWRITES):
        header, rest = header_of(whole)
        rng.choice([other_key, other_shape, other_type, other_place, less, metadata])(rng, header)
        path = tmp_path / f"canny{i}.safetensors"
        path.write_bytes(joined(header, rest))
        opened += checked(path, whole)
    assert opened < REWRITES / 4


@pytest.mark.parametrize("cut", [0, 4, 8, 100, -1, -400])
def test_cut_files(whole, tmp_path, cut):
    (tmp_path / "canny.safetensors").write_bytes(whole[:cut])
    assert not checked(tmp_path / "canny.safetensors", whole)


K = "transformer.transformer_blocks.0.attn.to_k"
Q = K.replace("to_k", "to_q")


def pair(stem=K, rank=2, dim=16, **more):
    """A LoRA of one layer, in diffusers' spelling; `more` by the end of the names."""
    down, up = torch.ones(rank, dim), torch.ones(dim, rank)
    return {
        f"{stem}.lora_A.weight": down,
        f"{stem}.lora_B.weight": up,
        **{f"{stem}.{end}": t for end, t in more.items()},
    }


LORAS = {
    "half": {"lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(48, 2)},
    "square": {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(16, 2),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 16),
    },
    "flat": {
        "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(96),
        "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 16),
    },
    "scalar down": {**pair(), f"{K}.lora_A.weight": torch.tensor(1.0)},
    "rank 0": pair(rank=0),
    "nan alpha": pair(alpha=torch.tensor(torch.nan)),
    "huge alpha": pair(alpha=torch.tensor(1e30)),
    "complex alpha": pair(alpha=torch.tensor(1j)),
    "several alphas": pair(alpha=torch.ones(2)),
    "two widths": {**pair(), **pair(Q, dim=8)},
    "two prefixes": {**pair(), **pair(K.removeprefix("transformer."))},
    "two parts": {**pair(), f"{K}.down.weight": torch.ones(2, 16)},
    "two layouts": {
        **pair(),
        **pair("double_blocks.0.img_attn.qkv"),
        "double_blocks.0.img_attn.qkv.lora_B.weight": torch.ones(48, 2),
    },
    "line ends": {**pair(), "a\n\x1b[31m": torch.ones(1)},
    "dora of kohya": pair(dora_scale=torch.ones(16, 1)),
    "dora of peft": pair(**{"lora_magnitude_vector.weight": torch.ones(16)}),
    "whole numbers": {
        "transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(2, 16, dtype=torch.int8),
        "transformer_blocks.0.attn.to_k.lora_B.weight": torch.ones(16, 2, dtype=torch.int8),
    },
    "icedit": {"transformer.single_transformer_blocks.0.proj_out.lora_route.weight": torch.ones(4, 16)},
    "ominicontrol": {
        "transformer.transformer_blocks.0.norm1.linear.lora_A.weight": torch.ones(2, 16),
        "transformer.transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(2, 16),
        "transformer.transformer_blocks.0.attn.to_k.lora_B.weight": torch.ones(16, 2),
    },
}
SENTENCES = {
    "half": "has only half of",
    "square": "do not fit together",
    "flat": "expected a matrix of numbers",
    "scalar down": r"is F32 of shape \(\), expected a matrix of numbers",
    "rank 0": r"shape \(0, 16\), expected a matrix of numbers",
    "nan alpha": "x.safetensors cannot be read as experts: .*alpha is nan, expected",
    "huge alpha": "x.safetensors cannot be read as experts: .*alpha is 1.0.*e[+]30, expected",
    "complex alpha": "is no number",
    "several alphas": "is no number",
    "two widths": "layers of different widths",
    "two prefixes": "holds .*, expected one of them: both are the same matrix",
    "two parts": "holds .*, expected one of them: both are the same matrix",
    "two layouts": "holds .*, expected one of them: both are the same matrix",
    "line ends": r"also changes 1 tensors .*\(a.n.x1b\[31m\)",
    "dora of kohya": "is a DoRA, which divides by the base's weights",
    "dora of peft": "is a DoRA, which divides by the base's weights",
    "whole numbers": "expected a matrix of numbers",
    "icedit": "is ICEdit's mixture of LoRAs",
    "ominicontrol": "OminiControl",
}


@pytest.mark.parametrize("what", LORAS)
def test_loras_that_cannot_be_experts(tmp_path, what):
    save_file(LORAS[what], tmp_path / "x.safetensors")
    for kind in ("auto", "partial") if what != "line ends" else ("auto",):
        with pytest.raises(FileError, match=SENTENCES[what]) as caught:
            open_experts(tmp_path / "x.safetensors", kind=kind)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "alpha", [torch.tensor(8), torch.tensor([8.0], dtype=torch.float64), torch.tensor(8.0).to(FP8)]
)
def test_an_alpha_may_be_any_number(tmp_path, alpha):
    save_file(pair(alpha=alpha), tmp_path / "x.safetensors")
    assert open_experts(tmp_path / "x.safetensors").info.experts["x"].alpha == 8.0


def test_a_lora_of_text_and_picture_is_no_ominicontrol(tmp_path):
    more = pair("transformer.transformer_blocks.0.norm1.linear")
    for other in ("transformer_blocks.0.norm1_context.linear", "transformer_blocks.0.attn.add_k_proj"):
        save_file({**pair(), **more, **pair(other)}, tmp_path / "x.safetensors")
        with pytest.raises(FileError, match="also changes 4 tensors that no expert can"):
            open_experts(tmp_path / "x.safetensors")
        assert open_experts(tmp_path / "x.safetensors", kind="partial").info.experts["x"].targets == {"k": "double"}


def test_kinds_and_names_that_a_file_has_no_use_for_are_said(whole, tmp_path):
    (tmp_path / "canny.safetensors").write_bytes(whole)
    save_file(pair(), tmp_path / "lora.safetensors")
    open_experts(tmp_path / "canny.safetensors").save(tmp_path / "bank.safetensors")
    for name, kind in (
        ("canny", "partial"),
        ("lora", "canny"),
        ("bank", "canny"),
        ("bank", "partial"),
        ("lora", "bogus"),
    ):
        with pytest.raises(
            FileError, match=f"{name}.safetensors cannot be read as experts: kind is '{kind}', expected"
        ):
            open_experts(tmp_path / f"{name}.safetensors", kind=kind)
    named = open_experts(tmp_path / "bank.safetensors", name="my edges")
    assert list(named.info.experts) == ["my_edges"] and all("my_edges" in key for key in named.tensors)
    merge([named, open_experts(tmp_path / "canny.safetensors")]).save(tmp_path / "two.safetensors")
    with pytest.raises(FileError, match="The name is x for 2 experts, expected one"):
        open_experts(tmp_path / "two.safetensors", name="x")


def test_a_name_that_says_nothing_asks_for_a_kind(whole, tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(whole)
    with pytest.raises(FileError, match="does not say what it is for, expected a name with one of canny"):
        open_experts(tmp_path / "pytorch_lora_weights.safetensors")
    bank = open_experts(tmp_path / "pytorch_lora_weights.safetensors", kind="pose", name="my pose")
    assert list(bank.info.experts) == ["my_pose"]
