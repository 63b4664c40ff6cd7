"""Progressive Representation Weaving inside FLUX's blocks (paper, section 2.2, eq. 4 to 7).

The source runs through FLUX's own image-side weights. In every block routed experts add to its keys
and values, its queries see its own keys only (`run_source_stream`), and text and noise read them
(`append_sources`). The blocks' submodules are called, never their weights read, so LoRA, fp8 and
offloading of the base keep working.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from einops import rearrange
from torch import Tensor, nn

from .experts import BlockExperts
from .flux.blocks import FluxModel, call_directly
from .flux.inputs import BlockModulation
from .flux.math import modulate, split_qkv_mlp
from .router import Route

Attend = Callable[..., Tensor]
"""q, k, v before rotation (batch, heads, tokens, head_dim), perhaps mask= -> (batch, tokens, dim)."""
Selector = Callable[[str, Tensor], BlockExperts]
"""Block name and modulated source tokens -> the route and its experts."""
RunBlock = Callable[..., Any]
"""Calls a block's function with its arguments: directly, or in training under activation checkpointing."""
BLOCK_CONTEXT = "block_context"
"""Name of a method that the blocks of a sharded base have: it gathers the block's weights and calls a function."""


class BlockKV(NamedTuple):
    """What one block leaves for text and noise to read: K and V of the source, before rotation."""

    block: str
    k: Tensor
    v: Tensor
    route: Route


def named_blocks(flux: nn.Module) -> Iterator[tuple[str, Any]]:
    """Lists all blocks in order, with the names that a bank's tensors have."""
    for kind in ("double_blocks", "single_blocks"):
        for i, block in enumerate(getattr(flux, kind)):
            yield f"{kind}.{i}", block


def run_source_stream(
    flux: FluxModel,
    h: Tensor,
    modulation: BlockModulation,
    attend: Attend,
    select: Selector,
    run: RunBlock = call_directly,
) -> Iterator[BlockKV]:
    """Runs source tokens h (batch, tokens, dim) through all blocks and yields each block's keys and values."""
    for name, block in named_blocks(flux):
        run_block = run_double_block if name.startswith("double") else run_single_block
        h, kv = run(getattr(block, BLOCK_CONTEXT, call_directly), run_block, name, block, h, modulation, attend, select)
        h = clamp_fp16(h)
        yield kv


def clamp_fp16(h: Tensor) -> Tensor:
    """Keeps fp16 within its range, as the host does: it can overflow in FLUX."""
    return h.nan_to_num(nan=0.0, posinf=65504, neginf=-65504) if h.dtype == torch.float16 else h


def run_double_block(
    name: str, block: Any, h: Tensor, modulation: BlockModulation, attend: Attend, select: Selector
) -> tuple[Tensor, BlockKV]:
    """Runs one source through a double block's image side."""
    mod1, mod2 = modulation(name, block)
    modulated = modulate(block.img_norm1(h), mod1)
    experts = select(name, modulated)
    residuals = [
        experts.residual(modulated, projection) for projection in "qkv"
    ]  # first: fp8 layers may clamp their input
    q, k, v = add_residuals(block.img_attn.qkv(modulated), residuals, block.num_heads)
    q, k = block.img_attn.norm(q, k, v)

    attn = attend(q, k, v)
    out = block.img_attn.proj(attn)
    out = add_optional(add_optional(out, experts.residual(attn, "out")), experts.residual(out, "proj"))
    h = h + mod1.gate * out
    h = h + mod2.gate * block.img_mlp(modulate(block.img_norm2(h), mod2))
    return h, BlockKV(name, k, v, experts.route)


def run_single_block(
    name: str, block: Any, h: Tensor, modulation: BlockModulation, attend: Attend, select: Selector
) -> tuple[Tensor, BlockKV]:
    """Runs one source through a single block."""
    mod, _ = modulation(name, block)
    modulated = modulate(block.pre_norm(h), mod)
    experts = select(name, modulated)
    residuals = [experts.residual(modulated, projection) for projection in "qkv"]
    qkv, mlp = split_qkv_mlp(block.linear1(modulated), block.hidden_size)
    q, k, v = add_residuals(qkv, residuals, block.num_heads)
    q, k = block.norm(q, k, v)

    attn = attend(q, k, v)
    out = block.linear2(torch.cat((attn, block.mlp_act(mlp)), dim=-1))
    h = h + mod.gate * add_optional(out, experts.residual(attn, "out"))
    return h, BlockKV(name, k, v, experts.route)


def add_optional(x: Tensor, residual: Tensor | None) -> Tensor:
    return x if residual is None else x + residual


def add_residuals(qkv: Tensor, residuals: Sequence[Tensor | None], heads: int) -> list[Tensor]:
    """Computes eq. 4: the frozen projection plus the experts' residuals, split into heads."""
    sums = map(add_optional, qkv.chunk(3, dim=-1), residuals)
    return [rearrange(part, "B L (H D) -> B H L D", H=heads) for part in sums]


def append_sources(k: Tensor, v: Tensor, pe: Tensor, sources: Sequence[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Eq. 5 and 6: text and noise (k, v) get the sources' keys and values behind their own.

    Our choice where eq. 5 and 6 write K_h without its hat: these are eq. 4's, of the same block. Eq. 7 is then FLUX's
    attention itself, whose queries are text and noise only.
    """
    k = torch.cat([k, *(source_k.expand(len(k), -1, -1, -1) for source_k, _ in sources)], dim=2)
    v = torch.cat([v, *(source_v.expand(len(v), -1, -1, -1) for _, source_v in sources)], dim=2)
    if pe.shape[2] < k.shape[2]:  # a GPU kernel would read past the end without a word
        raise RuntimeError(f"Positions cover {pe.shape[2]} keys, expected {k.shape[2]}: please report this graph.")
    return k, v


def append_positions(pe: Tensor, keys: int, sources: Sequence[Tensor]) -> Tensor:
    """Puts the sources' rotary positions (batch or 1, 1, tokens, ...) where their keys will stand: behind the first `keys`.

    What lies behind belongs to another extension that appends its own keys later.
    """
    between = [source.expand(len(pe), -1, -1, -1, -1, -1) for source in sources]
    return torch.cat([pe[:, :, :keys], *between, pe[:, :, keys:]], dim=2)


def append_mask(mask: Tensor | None, bias: Tensor | None, q: Tensor, keys: int, sources: int) -> Tensor | None:
    """Makes the additive attention mask over the longer keys, or returns None where nothing asks for one.

    `mask` is the host's (bool or additive, last dimension `keys`); `bias` (..., queries or 1, sources' tokens)
    is log strength, -inf where a source may not act.
    """
    if mask is None and bias is None:
        return None
    bias = q.new_zeros(1, sources) if bias is None else bias
    mask = q.new_zeros(1, keys) if mask is None else mask
    mask = make_additive(mask, q.dtype)
    if mask.ndim == 3 and bias.ndim == 4:
        mask = mask[:, None]
    shape = torch.broadcast_shapes(mask.shape[:-1], bias.shape[:-1])
    longer = torch.cat([part.expand(*shape, -1) for part in (mask, bias.to(mask.dtype))], dim=-1)
    return longer.expand(*shape[:-1], q.shape[2], -1)


def make_additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """Turns a bool mask into numbers to add: not all of the host's attention functions know bools."""
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, -torch.inf) if mask.dtype == torch.bool else mask
