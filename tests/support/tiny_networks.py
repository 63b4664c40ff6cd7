"""Networks that measure, tiny and with random weights, saved as their makers save the real ones."""

import json
from pathlib import Path

import torch
from cologen.training.data.tasks.line_network import LineDrawing
from torch import nn

WORDS = "abcdefghijklmnopqrstuvwxyz0123456789"


def tiny_clip(folder: Path) -> None:
    from transformers import CLIPConfig, CLIPModel

    torch.manual_seed(0)
    text = dict(vocab_size=2 * len(WORDS) + 2, hidden_size=32, intermediate_size=32, num_hidden_layers=1)
    text |= dict(num_attention_heads=2, max_position_embeddings=16, bos_token_id=72, eos_token_id=73, pad_token_id=73)
    vision = dict(hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=32)
    CLIPModel(
        CLIPConfig(text_config=text, vision_config={**vision, "patch_size": 8}, projection_dim=16)
    ).save_pretrained(folder)
    letters = [*WORDS, *(f"{letter}</w>" for letter in WORDS), "<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({letter: i for i, letter in enumerate(letters)}))
    (folder / "merges.txt").write_text("#version: 0.2\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "CLIPTokenizer"}))


def tiny_dino(folder: Path, kind: str = "ViT") -> None:
    import transformers

    torch.manual_seed(1)
    shape = dict(hidden_size=32, num_hidden_layers=1, num_attention_heads=2, image_size=224, patch_size=32)
    config = getattr(transformers, f"{kind}Config")(**shape, intermediate_size=32)
    getattr(transformers, f"{kind}Model")(config).save_pretrained(folder)


def tiny_depth(folder: Path) -> None:
    from transformers import DPTConfig, DPTForDepthEstimation, DPTImageProcessor

    torch.manual_seed(2)
    shape = dict(hidden_size=16, num_hidden_layers=4, num_attention_heads=2, intermediate_size=16, image_size=64)
    neck = dict(backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[4, 4, 8, 8], fusion_hidden_size=8, patch_size=16)
    network = DPTForDepthEstimation(DPTConfig(**shape, **neck, is_hybrid=False))
    network.head.head[-2].weight.data.abs_()  # or the last ReLU leaves nothing
    network.save_pretrained(folder)
    DPTImageProcessor(size={"height": 64, "width": 64}, keep_aspect_ratio=False).save_pretrained(folder)


def tiny_segmenter(folder: Path, classes: int) -> None:
    from transformers import SegformerConfig, SegformerForSemanticSegmentation, SegformerImageProcessor

    torch.manual_seed(3)
    shape = dict(hidden_sizes=[8, 8, 8, 8], depths=[1] * 4, num_attention_heads=[1] * 4, decoder_hidden_size=8)
    network = SegformerForSemanticSegmentation(SegformerConfig(**shape, num_labels=classes))
    network.decode_head.classifier.weight.data.mul_(100)
    network.save_pretrained(folder)
    SegformerImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder)


def tiny_universal_segmenter(folder: Path, classes: int) -> None:
    from transformers import (
        DetrConfig,
        MaskFormerConfig,
        MaskFormerForInstanceSegmentation,
        MaskFormerImageProcessor,
        SwinConfig,
    )

    torch.manual_seed(4)
    swin = SwinConfig(image_size=64, embed_dim=16, depths=[1] * 4, num_heads=[2] * 4, window_size=2)
    swin.out_features = ["stage1", "stage2", "stage3", "stage4"]
    detr = DetrConfig(num_queries=12, d_model=16, decoder_layers=1, decoder_attention_heads=2, decoder_ffn_dim=16)
    config = MaskFormerConfig(backbone_config=swin, decoder_config=detr, fpn_feature_size=32, mask_feature_size=32)
    config.num_labels = classes
    MaskFormerForInstanceSegmentation(config).save_pretrained(folder)
    MaskFormerImageProcessor(size={"height": 64, "width": 64}, size_divisor=0).save_pretrained(folder)


def tiny_lines(path: Path) -> None:
    """Of the real size, which is small."""
    torch.manual_seed(5)
    torch.save(LineDrawing().state_dict(), path)


class _Layers(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 23, stride=23)  # 299 = 13 * 23

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).flatten(1).repeat(1, 2)[:, :2048]


class _Inception(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = _Layers()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers((x - 128) / 128)


def tiny_inception(path: Path) -> None:
    torch.manual_seed(6)
    torch.jit.script(_Inception()).save(str(path))


def tiny_judge(folder: Path) -> None:
    """LLaVA: a CLIP for pictures, a Llama for words, split at spaces."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import (
        CLIPImageProcessor,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )

    torch.manual_seed(7)
    known = ["<pad>", "<s>", "</s>", "<unk>", "<image>", "score", ":", "[", "]", ",", *map(str, range(11))]
    words = Tokenizer(models.WordLevel({word: i for i, word in enumerate(known)}, "<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    special = dict(pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words, **special, extra_special_tokens={"image_token": "<image>"}
    )
    vision = CLIPVisionConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    vision.image_size, vision.patch_size = 32, 16
    language = LlamaConfig(
        vocab_size=len(known), hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    config = LlavaConfig(vision_config=vision, text_config=language, image_token_id=4, image_seq_length=4)
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image> {% else %}"
        "{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32}),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
