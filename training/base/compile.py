"""torch.compile for the frozen base."""

from torch import nn

from ...prw.weaving import named_blocks


def compile_blocks(flux: nn.Module, backend: str = "inductor") -> None:
    """Compiles the blocks of our own FLUX in place;
    the source's pass calls their layers one by one and stays as it is."""
    for _, block in named_blocks(flux):
        block.compile(backend=backend)
