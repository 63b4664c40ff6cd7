"""A concept's file."""

import torch
from host_subject import random_concept


def test_as_a_lora_it_can_become_an_expert(tmp_path):
    """What it does to single blocks; double blocks' text is none of a source's."""
    from cologen.prw.bank.importers import open_experts

    concept = random_concept()
    bank = open_experts(concept.save(tmp_path / "mine.safetensors"), "mine", "partial")
    for block in concept.info.base.blocks("single"):
        for target, pair in bank.expert("mine", block).items():
            name = f"transformer.single_transformer_blocks.{block.split('.')[1]}.attn.to_{target}"
            down, up = (concept.tensors[f"{name}.lora_{part}.weight"] for part in "AB")
            found = pair.up.float() @ pair.down.float() * pair.scale
            assert torch.allclose(found, up @ down * 1.5, atol=1e-5)
    assert set(bank.info.experts["mine"].targets) == {"k", "v"}
