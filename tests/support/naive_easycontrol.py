"""EasyControl's forward written out from the public description of its files, and random files of their exact layout.

One joint sequence [text, noise, condition 1, condition 2, ...]; nothing is shared with the pack.
"""

import torch
from naive import Naive
from safetensors.torch import save_file

WIDTH, RANK = 256, 4


def random_file(seed=0, double=2, single=2, rank=RANK, width=WIDTH, number=0, prefix="", size=0.3):
    """Tensors as the public trainer saves them: no alpha, no metadata."""
    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for kind, count, targets in (
        ("transformer_blocks", double, "q k v proj"),
        ("single_transformer_blocks", single, "q k v"),
    ):
        for block in range(count):
            for target in targets.split():
                stem = f"{prefix}{kind}.{block}.attn.processor.{target}_loras.{number}"
                tensors[f"{stem}.down.weight"] = torch.randn(rank, width, generator=generator) * width**-0.5
                tensors[f"{stem}.up.weight"] = torch.randn(width, rank, generator=generator) * size
    return tensors


def over(rows, columns, target_rows, target_columns):
    """A condition laid over the target: index times (target / condition), from the origin."""
    down, right = target_rows / rows, target_columns / columns
    return torch.tensor([[0, i * down, j * right] for i in range(rows) for j in range(columns)])


def below(rows, columns):
    return torch.tensor([[0.0, i + 64, j] for i in range(rows) for j in range(columns)])


class NaiveEasyControl(Naive):
    """Sources are dicts with latent, positions, file (its tensors), weight."""

    def lora(self, source, block, target, x):
        kind, index = block.split(".")
        stem = (
            f"{'' if kind == 'double_blocks' else 'single_'}transformer_blocks.{index}.attn.processor.{target}_loras.0"
        )
        down, up = source["file"][f"{stem}.down.weight"], source["file"][f"{stem}.up.weight"]
        return source["weight"] * ((x @ down.T) @ up.T)

    def add_residuals(self, bank, source, block, h, q, k, v):
        return tuple(part + self.lora(source, block, name, h) for name, part in (("q", q), ("k", k), ("v", v)))

    def add_output_residual(self, bank, source, block, y):
        """Their output LoRA reads what the projection, bias included, has made."""
        return y if source is None else y + self.lora(source, block, "proj", y)

    def find_guidance(self, source, guidance):
        return guidance


def save_library(folder):
    """Files of three experts, as their authors publish them."""
    for seed, name in enumerate(("canny", "depth", "subject")):
        save_file(random_file(seed), folder / f"{name}.safetensors")
    return folder
