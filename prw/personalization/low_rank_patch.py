"""A FLUX some of whose layers have low-rank weights beside their own, for a while and without touching them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from .concept import Bend


@contextmanager
def bent(flux: nn.Module, bends: Mapping[str, Sequence[Bend]]) -> Iterator[None]:
    """Within, the layers named add what `bends` make of their inputs; gradients reach both.

    A backward that computes blocks again (checkpointing) belongs within.
    """
    handles = []
    try:
        for name, some in bends.items():
            layer, module = _Bent(some), flux.get_submodule(name)
            # before all others: they may detach the input, and fp8 layers clamp it in place
            handles.append(module.register_forward_pre_hook(layer.before, prepend=True))
            handles.append(module.register_forward_hook(layer.after))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _Bent:
    def __init__(self, bends: Sequence[Bend]):
        self.bends, self.added = bends, []

    def before(self, module: nn.Module, args: tuple) -> None:
        self.added = [(bend.rows, bend.pair(args[0])) for bend in self.bends]

    def after(self, module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        out, added, self.added = out.clone(), self.added, []
        for rows, residual in added:
            out[..., rows] += residual.to(out)
        return out
