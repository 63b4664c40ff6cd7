"""Damaged files of text encoders and VAEs, tiny: each is refused in a sentence, or makes a model that computes."""

import pytest
import torch
from cologen.training.encoders.open_flux1 import END, open_clip, open_t5, open_vae
from cologen.training.encoders.open_flux2 import LAYERS, open_flux2_vae, open_qwen3
from mutate import mutate_file
from safetensors.torch import save_file

WIDTH = 64
TOKENS = torch.zeros(1, 3, dtype=torch.long)


def save(model, path, prefix=""):
    torch.manual_seed(0)
    tensors = {prefix + name: torch.randn(like.shape) / 16 for name, like in model.state_dict().items()}
    save_file({name: tensor.bfloat16() for name, tensor in tensors.items()}, path)


def save_t5(path):
    from transformers import T5Config, T5EncoderModel

    sizes = dict(vocab_size=16, d_model=WIDTH, d_kv=16, d_ff=32, num_layers=2, num_heads=4)
    save(T5EncoderModel(T5Config(**sizes, feed_forward_proj="gated-gelu")), path)


def save_clip(path):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    sizes = dict(
        vocab_size=END + 1, hidden_size=WIDTH, intermediate_size=32, num_attention_heads=1, num_hidden_layers=2
    )
    save(CLIPTextModelWithProjection(CLIPTextConfig(**sizes)).text_model, path, "text_model.")


def save_qwen3(path):
    from transformers import Qwen3Config, Qwen3Model

    sizes = dict(vocab_size=16, hidden_size=WIDTH, intermediate_size=32, num_hidden_layers=LAYERS[-1], head_dim=16)
    save(Qwen3Model(Qwen3Config(**sizes, num_attention_heads=2, num_key_value_heads=1)), path, "model.")


def save_vae(kind, **options):
    def save_it(path):
        import diffusers

        blocks = dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
        vae = getattr(diffusers, kind)(**blocks, block_out_channels=(32, 64, 128, 128), layers_per_block=2, **options)
        save(vae, path)

    return save_it


def encode(vae):
    vae.encode(torch.zeros(1, 3, 16, 16))


FORMATS = {
    "T5": (save_t5, open_t5, lambda t5: t5(TOKENS)),
    "CLIP": (save_clip, open_clip, lambda clip: clip(TOKENS)),
    "Qwen3": (save_qwen3, open_qwen3, lambda qwen3: qwen3(TOKENS)),
    "VAE": (
        save_vae("AutoencoderKL", latent_channels=4, use_quant_conv=False, use_post_quant_conv=False),
        open_vae,
        encode,
    ),
    "VAE of FLUX.2": (save_vae("AutoencoderKLFlux2", latent_channels=4), open_flux2_vae, encode),
}
"""How a file is written, opened, and used."""


@pytest.mark.parametrize("format", FORMATS)
@torch.no_grad()
def test_damaged_encoders(tmp_path, fuzz, format):
    write, open_model, use = FORMATS[format]
    path = tmp_path / "encoder.safetensors"
    write(path)
    use(open_model(path, "cpu", torch.float32))
    whole = path.read_bytes()

    def attempt(rng):
        path.unlink()
        path.write_bytes(mutate_file(rng, whole))
        use(open_model(path, "cpu", torch.float32))

    fuzz.run(8, attempt, 0.1)
