"""diffusers' FLUX.2 with the weights of ours, and its way with references."""

import torch
from diffusers import Flux2Transformer2DModel
from diffusers.loaders.single_file_utils import convert_flux2_transformer_checkpoint_to_diffusers
from diffusers.models.transformers.transformer_flux2 import Flux2KVAttnProcessor, Flux2KVParallelSelfAttnProcessor


def convert_to_diffusers(flux):
    """The same weights in diffusers' model, by diffusers' own converter of single files."""
    params = flux.params
    model = Flux2Transformer2DModel(
        num_layers=params.depth,
        num_single_layers=params.depth_single_blocks,
        num_attention_heads=params.num_heads,
        joint_attention_dim=params.context_in_dim,
        guidance_embeds=params.guidance_embed,
    )
    model.load_state_dict(convert_flux2_transformer_checkpoint_to_diffusers(dict(flux.state_dict())))
    for block in model.transformer_blocks:
        block.attn.set_processor(Flux2KVAttnProcessor())
    for block in model.single_transformer_blocks:
        block.attn.set_processor(Flux2KVParallelSelfAttnProcessor())
    return model.eval()


def make_ids(rows, columns, first=0):
    """(tokens, 4): a picture's positions."""
    return torch.cartesian_prod(torch.tensor([first]), torch.arange(rows), torch.arange(columns), torch.tensor([0]))


def make_text_ids(tokens):
    ids = torch.zeros(tokens, 4)
    ids[:, 3] = torch.arange(tokens)
    return ids


def flatten(latent):
    return latent.flatten(2).transpose(1, 2)


def predict_with_references(model, flux, x, times, context, guidance, references, cache=None):
    """The velocity at x and the cache of the references: made at the first call, read at later ones."""
    tokens, ids = flatten(x), make_ids(*x.shape[-2:])
    options = dict(kv_cache=cache, kv_cache_mode="cached")
    if cache is None:
        tokens = torch.cat([*(flatten(each).expand(len(x), -1, -1) for each in references), tokens], dim=1)
        ids = torch.cat([*(make_ids(*each.shape[-2:], 10 * (i + 1)) for i, each in enumerate(references)), ids])
        options = dict(kv_cache_mode="extract", num_ref_tokens=tokens.shape[1] - x[0, 0].numel())
    text_ids = make_text_ids(context.shape[1])
    out = model(tokens, context, times, ids.float(), text_ids, guidance, **options)
    out, cache = (out.sample, cache) if cache is not None else (out.sample, out.kv_cache)
    out = out[:, -x[0, 0].numel() :]
    return out.transpose(1, 2).reshape(x.shape), cache
