"""A subject of three photos on the smallest FLUX, and its recipe."""

import copy

import numpy as np
import pack  # noqa: F401
import torch
from cologen.prw.base_model import Base
from cologen.prw.personalization.marked_prompt import MarkedTokens, remove_marks
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.recipes.subject import OWN, PRIOR, make_subject_recipe
from cologen.training.subject.dataset import encode_photos
from cologen.training.subject.run import SubjectRun
from tiny_run import TinyEncoders, tiny_dataset, tiny_host


class WordyEncoders(TinyEncoders):
    """A token a word; behind them, one of padding."""

    def encode_prompts(self, prompts):
        rows = [[sum(map(ord, word)) for word in remove_marks(prompt).split()] for prompt in prompts]
        tokens = 1 + max(map(len, rows))
        context = torch.zeros(len(rows), tokens, 8)
        for i, row in enumerate(rows):
            for j, word in enumerate(row):
                context[i, j] = torch.randn(8, generator=torch.Generator().manual_seed(word))
        return context, context.sum(1)[:, :4]

    def find_words(self, prompt):
        words = prompt.split()
        return MarkedTokens(tuple(i for i, word in enumerate(words) if "[" in word), len(words))

    def encode(self, pictures):
        return torch.stack(
            [torch.randn(16, 4, 4, generator=torch.Generator().manual_seed(int(picture.sum()))) for picture in pictures]
        )


PICTURES = {f"photo{i}": np.full((32, 32, 3), i, np.uint8) for i in range(1, 4)}


def recipe(iterations=6, batch=4, replay=0.0, subject=None, **settings):
    shared = dict(rank=2, alpha=2.0, resolution=32, rate=3e-3, save_every=2, validate_every=0, sample_every=0)
    stage = dict(name="mine", iterations=iterations, batch=batch, replay=replay)
    table = dict(
        noun="dog", caption="photo of a {}", contexts=3, **{"prompts": ["a dog there", "dog"], **(subject or {})}
    )
    return make_subject_recipe({**shared, **settings, "stages": [stage], "subject": table})


def tiny_subject(out, wanted, host=None, listeners=(), seed=7, pictures=PICTURES) -> SubjectRun:
    encoders = WordyEncoders()
    lessons = {OWN: encode_photos(encoders, pictures, wanted.subject), PRIOR: tiny_dataset(PRIOR)}
    lessons = lessons if wanted.stage.replay else {OWN: lessons[OWN]}
    return SubjectRun(
        host or tiny_host(), wanted, lessons, encoders, out, seed, "tiny", listeners, EMBEDDED_CHECKPOINTING
    )


def trainer_of(wanted, host=None):
    run = tiny_subject(None, wanted, host)
    return run.make_trainer(Base.of(run.host.flux))


def merge_concept(flux, info, tensors):
    """The same FLUX with the weights added to its matrices, row by row."""
    flux, dim = copy.deepcopy(flux), info.base.hidden_size
    names = {"transformer_blocks": ("double_blocks.{}.txt_attn.qkv", "attn.add_{}_proj")}
    names["single_transformer_blocks"] = ("single_blocks.{}.linear1", "attn.to_{}")
    for kind, (layer, part) in names.items():
        for i in range(len(getattr(flux, layer.split(".")[0]))):
            for place, target in enumerate("kv", start=1):
                key = f"transformer.{kind}.{i}.{part.format(target)}"
                if f"{key}.lora_A.weight" in tensors:
                    down, up = (tensors[f"{key}.lora_{p}.weight"].detach() for p in "AB")
                    weight = flux.get_submodule(layer.format(i)).weight.data
                    weight[place * dim : (place + 1) * dim] += info.alpha / info.rank * up @ down
    return flux
