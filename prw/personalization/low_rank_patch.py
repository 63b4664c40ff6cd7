"""Low-rank residuals on some layers of a FLUX: for a while, and without touching its weights."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from .concept import LayerResidual


@contextmanager
def apply_low_rank(flux: nn.Module, residuals: Mapping[str, Sequence[LayerResidual]]) -> Generator[None]:
    """Lets the named layers, within, add to their outputs what `residuals` make of their inputs; gradients reach both.

    A backward that computes blocks again (checkpointing) belongs within.
    """
    handles = []
    try:
        for name, layer_residuals in residuals.items():
            hooks, module = _LayerHooks(layer_residuals), flux.get_submodule(name)
            # before all others: they may detach the input, and fp8 layers clamp it in place
            handles.append(module.register_forward_pre_hook(hooks.before, prepend=True))
            handles.append(module.register_forward_hook(hooks.after))
        yield
    finally:
        for handle in handles:
            handle.remove()


class _LayerHooks:
    def __init__(self, residuals: Sequence[LayerResidual]):
        self.residuals = residuals
        self.computed: list[tuple[slice, Tensor]] = []

    def before(self, module: nn.Module, args: tuple) -> None:
        self.computed = [(residual.rows, residual.pair(args[0])) for residual in self.residuals]

    def after(self, module: nn.Module, args: tuple, out: Tensor) -> Tensor:
        out, computed, self.computed = out.clone(), self.computed, []
        for rows, residual in computed:
            out[..., rows] += residual.to(out)
        return out
