"""Tiny random networks that draw maps, as folders and files of the real kinds."""

from pathlib import Path

import torch
import transformers as T
from safetensors.torch import save_file

STAGES = [f"stage{i}" for i in range(1, 5)]
DPT = dict(neck_hidden_sizes=[8] * 4, fusion_hidden_size=8)
VIT = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=32, initializer_range=0.5)


def name_classes(count: int) -> dict:
    return dict(id2label={i: f"class {i}" for i in range(count)}, initializer_range=0.5)


def dpt():
    config = T.DPTConfig(**VIT, **DPT, image_size=32, patch_size=16, backbone_out_indices=[0, 1, 2, 3])
    return T.DPTForDepthEstimation(config), T.DPTImageProcessor(size=dict(height=32, width=32))


def depth_anything(**more):
    body = T.Dinov2Config(**VIT, image_size=28, patch_size=14, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    config = T.DepthAnythingConfig(
        backbone_config=body,
        **DPT,
        patch_size=14,
        reassemble_hidden_size=16,
        head_hidden_size=4,
        initializer_range=0.5,
        **more,
    )
    size = dict(size=dict(height=56, width=56), keep_aspect_ratio=True, ensure_multiple_of=14)
    return T.DepthAnythingForDepthEstimation(config), T.DPTImageProcessor(**size)


def metric_depth_anything():
    return depth_anything(depth_estimation_type="metric", max_depth=20)


def zoe_depth():
    body = T.BeitConfig(**VIT, image_size=32, patch_size=16, out_indices=[1, 2, 3, 4], reshape_hidden_states=False)
    bins = dict(bottleneck_features=8, num_relative_features=8, bin_embedding_dim=8, num_attractors=[4, 2, 2, 1])
    network = T.ZoeDepthForDepthEstimation(T.ZoeDepthConfig(backbone_config=body, **DPT, **bins, initializer_range=0.5))
    for weight in network.parameters():
        weight.data.mul_(10 if weight.ndim > 1 else 1)  # so that places differ in depth
    return network, T.ZoeDepthImageProcessor(size=dict(height=32, width=32), ensure_multiple_of=16)


def make_processor():
    return T.SegformerImageProcessor(size=dict(height=64, width=64))


def segformer(count=150):
    one, four = [1] * 4, [8] * 4
    config = T.SegformerConfig(
        depths=one, hidden_sizes=four, num_attention_heads=one, decoder_hidden_size=8, **name_classes(count)
    )
    return T.SegformerForSemanticSegmentation(config), make_processor()


def upernet():
    body = T.ConvNextConfig(hidden_sizes=[8] * 4, depths=[1] * 4, out_features=STAGES)
    config = T.UperNetConfig(
        backbone_config=body, hidden_size=8, auxiliary_in_channels=8, auxiliary_channels=4, **name_classes(171)
    )
    return T.UperNetForSemanticSegmentation(config), make_processor()


def mask2former():
    one = [1] * 4
    body = T.SwinConfig(image_size=64, embed_dim=8, depths=one, num_heads=one, window_size=2, out_features=STAGES)
    wide = dict(feature_size=32, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=8, dim_feedforward=8)
    deep = dict(encoder_layers=1, decoder_layers=2, num_attention_heads=2, num_queries=6)
    config = T.Mask2FormerConfig(backbone_config=body, **wide, **deep, init_std=0.5, **name_classes(133))
    network = T.Mask2FormerForUniversalSegmentation(config)
    for part in (network.class_predictor, network.model.transformer_module.queries_features):
        part.weight.data.mul_(5)  # so that the queries differ, and with them the classes
    return network, T.Mask2FormerImageProcessor(size=dict(height=64, width=64))


def vitpose(experts=1, points=17):
    size, one = (64, 48), dict(num_hidden_layers=1, num_attention_heads=2)
    more = dict(num_experts=experts, part_features=8 if experts > 1 else 256, out_indices=[1])
    body = T.VitPoseBackboneConfig(image_size=size, hidden_size=16, initializer_range=0.5, **one, **more)
    config = T.VitPoseConfig(backbone_config=body, **name_classes(points))
    network = T.VitPoseForPoseEstimation(config)
    network.head.conv.weight.data.normal_().mul_(0.05)  # so that some points are sure, and places differ
    return network, T.VitPoseImageProcessor(size=dict(height=size[0], width=size[1]))


def vitpose_plus():
    return vitpose(experts=3)


def rt_detr(names=("person", "cat")):
    body = T.RTDetrResNetConfig(
        embedding_size=8, hidden_sizes=[8] * 4, depths=[1] * 4, layer_type="basic", out_features=STAGES[1:]
    )
    wide = dict(encoder_hidden_dim=16, d_model=16, encoder_ffn_dim=16, decoder_ffn_dim=16)
    heads = dict(encoder_attention_heads=2, decoder_attention_heads=2, decoder_layers=2, num_queries=8, num_denoising=0)
    config = T.RTDetrConfig(
        backbone_config=body,
        encoder_in_channels=[8] * 3,
        decoder_in_channels=[16] * 3,
        **wide,
        **heads,
        id2label=dict(enumerate(names)),
    )
    network = T.RTDetrForObjectDetection(config)
    for part in network.model.decoder.class_embed:
        part.weight.data.normal_()
        part.bias.data.copy_(torch.tensor([-2.4, 2.1]))  # so that queries differ in what they saw
    return network, T.RTDetrImageProcessor(size=dict(height=64, width=64))


DEPTH = dict(dpt=dpt, depth_anything=depth_anything, metric=metric_depth_anything, zoe_depth=zoe_depth)
SEG = dict(segformer=segformer, upernet=upernet, mask2former=mask2former)


def save_model(folder: Path, made) -> Path:
    torch.manual_seed(2)
    network, processor = made()
    network.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


def save_hed(path: Path) -> dict[str, torch.Tensor]:
    """Names and shapes as in ControlNetHED.pth, whose blocks are VGG-16's."""
    g = torch.Generator().manual_seed(0)
    weights = {"norm": torch.full((1, 3, 1, 1), 110.0)}
    for block, (inputs, outputs, depth) in enumerate(
        ((3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)), 1
    ):
        shapes = {f"convs.{i}": (outputs, outputs if i else inputs, 3, 3) for i in range(depth)}
        for name, shape in {**shapes, "projection": (1, outputs, 1, 1)}.items():
            fan_in = shape[1] * shape[2] * shape[3]
            weights[f"block{block}.{name}.weight"] = torch.randn(shape, generator=g) * (2 / fan_in) ** 0.5
            weights[f"block{block}.{name}.bias"] = torch.randn(shape[0], generator=g) * 0.1
    weights = {name: tensor * 0.02 if "projection.weight" in name else tensor for name, tensor in weights.items()}
    save_file(weights, path)
    return weights
