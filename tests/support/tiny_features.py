"""Features at their smallest: random ones in the host, a stage that trains them, and FLUX's forward with them written out."""

from dataclasses import replace

import torch
from cologen.prw.base_model import Base
from cologen.prw.comfyui.conditioning import add_source
from cologen.prw.coredi.features import Features, FeaturesInfo, list_shapes
from cologen.prw.flux.math import rotary, timestep_embedding
from cologen.training.add_expert import add_expert, make_empty_bank
from cologen.training.coredi.encoder_features import compute_features
from cologen.training.coredi.trainer import FeatureTrainer
from cologen.training.forward import EMBEDDED_CHECKPOINTING
from cologen.training.stage_context import StageContext
from cologen.training.stage_trainer import StageTrainer
from sampling import SIGMAS, conditioning, sample
from tiny import source
from tiny_run import TinyEncoders, tiny_curriculum, tiny_dataset


def random_features(flux, way="coredi", task="control", seed=5):
    info, g = FeaturesInfo(Base.of(flux), way, task, 6), torch.Generator().manual_seed(seed)
    tensors = {name: 0.2 * torch.randn(shape, generator=g) for name, shape in list_shapes(info).items()}
    return Features(info, {**tensors, "norm.weight": tensors["norm.weight"] + 1})


def read_features(model, features, weight=1.0):
    from cologen.prw.comfyui.feature_sampling import FeatureReader

    return FeatureReader(features, weight).attach(model)


def sourced_conditioning(seed=4, **how):
    return add_source(conditioning(seed), source(**how))


def sample_sourced(model, **how):
    return sample(model, sourced_conditioning(), sourced_conditioning(6), sigmas=torch.tensor(SIGMAS), **how)


def tiny_feature_trainer(host, way, up=0.2, random_head=True, **changes):
    """At the start of a stage; `random_head` gives the head weights that say something already."""
    curriculum = tiny_curriculum(**{"feature_size": 4, "clip": 0.0, **changes})
    stage = replace(curriculum.stages[0], features=way)
    bank = add_expert(make_empty_bank(Base.of(host.flux), curriculum.settings), stage, curriculum.settings, 0)
    g = torch.Generator().manual_seed(5)
    for name, tensor in bank.tensors.items():
        if name.endswith(".up"):
            tensor.copy_(up * torch.randn(tensor.shape, generator=g))
    datasets = {stage.task: tiny_dataset(stage.task, 40)}
    work = StageContext(
        host, stage, 0, curriculum.settings, datasets, TinyEncoders().encode_prompts([""]), 7, EMBEDDED_CHECKPOINTING
    )
    if way == "off":
        return StageTrainer(work, bank)
    trainer = FeatureTrainer(work, bank, compute_features(host, datasets[stage.task], TinyEncoders()))
    if random_head:
        head = trainer.trained["features.head.weight"]
        head.data.copy_(0.2 * torch.randn(head.shape, generator=g))
    return trainer


def forward_with_features(host, given, h, places):
    """FLUX's own forward on a picture that has the tokens as well: they see all and all see them."""
    flux, options = host.flux, given.source.options
    img, ids = flux.process_img(given.inputs.x)
    ids = torch.cat(
        (torch.zeros(len(img), given.inputs.context.shape[1], 3), ids, places.expand(len(img), -1, -1)), dim=1
    )
    pe = rotary(ids, flux.params.axes_dim, flux.params.theta)
    txt, own = flux.txt_in(given.inputs.context), img.shape[1]
    img = torch.cat((flux.img_in(img), h), dim=1)
    vec = flux.time_in(timestep_embedding(given.inputs.times)) + flux.vector_in(given.inputs.pooled)
    for i, block in enumerate(flux.double_blocks):
        img, txt = block(img, txt, vec, pe, options | {"block_type": "double", "block_index": i})
    img = torch.cat((txt, img), dim=1)
    for i, block in enumerate(flux.single_blocks):
        more = {"block_type": "single", "block_index": i, "img_slice": [txt.shape[1], img.shape[1]]}
        img = block(img, vec, pe, options | more)
    img = img[:, txt.shape[1] :]
    return img[:, :own], img[:, own:]
