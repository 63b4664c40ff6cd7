"""Files that are not what they claim: five hundred mutations, each a sentence or the whole truth."""

import json
import random

import pytest
import torch
from cologen.prw.bank_info import BankError
from cologen.prw.importers import open_experts
from naive_easycontrol import random_file
from safetensors.torch import save, save_file

SMALL = dict(double=2, single=1, width=16, rank=2)
FLIPS, REWRITES = 300, 200


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
    """Whether a file opens; if so it must be the original, else one short sentence."""
    try:
        bank = open_experts(path)
    except BankError as error:
        text = str(error)
        assert "\n" not in text and 20 < len(text) < 400 and text.endswith((".", ")")), text
        return False
    (name,) = bank.info.experts
    for block in bank.info.base.blocks():
        for pair in bank.expert(name, block).values():
            assert pair.down.shape == (2, 16) and pair.up.shape == (16, 2)
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
    "nan alpha": {
        "transformer.transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(2, 16),
        "transformer.transformer_blocks.0.attn.to_k.lora_B.weight": torch.ones(16, 2),
        "transformer.transformer_blocks.0.attn.to_k.alpha": torch.tensor(torch.nan),
    },
    "two widths": {
        "transformer_blocks.0.attn.to_k.lora_A.weight": torch.ones(2, 16),
        "transformer_blocks.0.attn.to_k.lora_B.weight": torch.ones(16, 2),
        "transformer_blocks.1.attn.to_k.lora_A.weight": torch.ones(2, 8),
        "transformer_blocks.1.attn.to_k.lora_B.weight": torch.ones(8, 2),
    },
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
    "nan alpha": "is no number",
    "two widths": "layers of different widths",
    "whole numbers": "expected a matrix of numbers",
    "icedit": "is ICEdit's mixture of LoRAs",
    "ominicontrol": "OminiControl",
}


@pytest.mark.parametrize("what", LORAS)
def test_loras_that_cannot_be_experts(tmp_path, what):
    save_file(LORAS[what], tmp_path / "x.safetensors")
    with pytest.raises(BankError, match=SENTENCES[what]):
        open_experts(tmp_path / "x.safetensors")


def test_a_name_that_says_nothing_asks_for_a_kind(whole, tmp_path):
    (tmp_path / "pytorch_lora_weights.safetensors").write_bytes(whole)
    with pytest.raises(BankError, match="does not say what it is for, expected a name with one of canny"):
        open_experts(tmp_path / "pytorch_lora_weights.safetensors")
    bank = open_experts(tmp_path / "pytorch_lora_weights.safetensors", kind="pose", name="my pose")
    assert list(bank.info.experts) == ["my_pose"]
