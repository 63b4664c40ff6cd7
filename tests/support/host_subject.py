"""One's own subject on the host's FLUX at its smallest: its recipe, its photos, a concept, and a Cancel while it trains."""

import torch
from cologen.prw.base_model import Base
from cologen.prw.personalization.concept import Concept, ConceptInfo
from cologen.training.comfyui.training_data import HostEncoders
from cologen.training.listener import Listener
from cologen.training.recipes.subject import make_subject_recipe
from cologen.training.subject.trainer import init_concept
from host_training import POOLED, TEXT, TinyVae
from tiny import tiny_flux


class WordyClip:
    """A token a word, behind them padding up to six."""

    def tokenize(self, text, return_word_ids=False):
        row = [(sum(map(ord, word)), 1.0, i + 1) for i, word in enumerate(text.split())]
        row += [(0, 1.0, 0)] * (6 - len(row))
        return {"t5xxl": [row if return_word_ids else [entry[:2] for entry in row]]}

    def encode_from_tokens(self, tokens, return_pooled=False):
        g = [torch.Generator().manual_seed(entry[0]) for entry in tokens["t5xxl"][0]]
        context = torch.stack([torch.randn(TEXT, generator=each) for each in g])[None]
        return context, context.mean(1)[:, :POOLED]


ENCODERS = HostEncoders(TinyVae(), WordyClip())
RECIPE = make_subject_recipe({
    **dict(rank=2, alpha=2.0, rate=3e-3, resolution=64, sample_every=0, validate_every=0, save_every=0, micro=2),
    "stages": [dict(name="subject", iterations=4, batch=3, replay=0.3)],
    "subject": dict(noun="dog", contexts=3),
})  # fmt: skip


def random_photos(count, size=(96, 64)):
    g = torch.Generator().manual_seed(size[0])
    return list((torch.rand(count, *size, 3, generator=g) * 255).byte().numpy())


def photo_datasets():
    from cologen.training.comfyui.subject import make_subject_datasets

    return make_subject_datasets(ENCODERS, random_photos(3), random_photos(2, (64, 80)), RECIPE)


class CancelAtTwo(Listener):
    def on_iteration(self, trainer, step):
        import comfy.model_management

        if trainer.iteration == 2:
            raise comfy.model_management.InterruptProcessingException


def random_concept(seed=5, where="all", **shape) -> Concept:
    """A concept that is to be seen."""
    g = torch.Generator().manual_seed(seed)
    info = ConceptInfo(Base.of(tiny_flux(**shape)), "dog", 2, TEXT, 4, 6.0, where)
    tensors = init_concept(info, torch.zeros(2, TEXT), 0).tensors
    tensors = {name: torch.randn(tensor.shape, generator=g) * 0.3 for name, tensor in tensors.items()}
    return Concept(info, tensors)
