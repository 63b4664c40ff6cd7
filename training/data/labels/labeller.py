"""Turns phrases into masks: boxes by GroundingDINO, masks in them by SAM, both from folders on this disk."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ..formats.regions import MAX_SHARE, MIN_SHARE
from ..formats.run_length_masks import encode_mask
from ..model_folder import load_network, load_processor
from ..sample import Sample
from .noun_phrases import FindPhrases, choose_finder

MAX_THINGS = 16
MODELS = {"detector": "IDEA-Research/grounding-dino-base", "segmenter": "facebook/sam-vit-base"}
"""What the paper names, on a hub."""


@dataclass(frozen=True)
class Labeller:
    """Finds the things of pictures by their captions."""

    detector: Any
    detector_processor: Any
    segmenter: Any
    segmenter_processor: Any
    find_phrases: FindPhrases
    by: str
    """The way in which phrases are found."""
    threshold: float = 0.35
    """Least confidence in a box; of words in a box, a little less."""

    def label(self, samples: Sequence[Sample]) -> list[list[dict]]:
        """Lists the things of each picture, as JSON."""
        phrases = [self.find_phrases(sample.caption) for sample in samples]
        named = [i for i, some in enumerate(phrases) if some]
        boxes = self.detect([samples[i].picture for i in named], [phrases[i] for i in named]) if named else []
        things = {i: self.segment(samples[i].picture, *some) for i, some in zip(named, boxes)}
        return [things.get(i, []) for i in range(len(samples))]

    @torch.no_grad()
    def detect(
        self, pictures: Sequence[np.ndarray], phrases: Sequence[Sequence[str]]
    ) -> list[tuple[torch.Tensor, list[str]]]:
        """Finds each picture's boxes (count, 4) and the phrase of each, the surest first."""
        texts = [". ".join(asked) + "." for asked in phrases]
        inputs = self.detector_processor(
            images=list(pictures), text=texts, return_tensors="pt", padding=True, truncation=True
        )
        inputs = inputs.to(self.detector.device)
        results = self.detector_processor.post_process_grounded_object_detection(
            self.detector(**inputs),
            inputs["input_ids"],
            threshold=self.threshold,
            text_threshold=0.7 * self.threshold,
            target_sizes=[picture.shape[:2] for picture in pictures],
        )
        detected = []
        for result, asked in zip(results, phrases):
            names = [match_phrase(label, asked) for label in result["text_labels"]]
            order = [i for i in result["scores"].argsort(descending=True).tolist() if names[i]][:MAX_THINGS]
            detected.append((result["boxes"][order].cpu(), [names[i] for i in order]))
        return detected

    @torch.no_grad()
    def segment(self, picture: np.ndarray, boxes: torch.Tensor, names: list[str]) -> list[dict]:
        """Finds the mask in each box."""
        if not names:
            return []
        inputs = self.segmenter_processor(images=picture, input_boxes=[boxes.tolist()], return_tensors="pt")
        outputs = self.segmenter(**inputs.to(self.segmenter.device))
        (masks,) = self.segmenter_processor.image_processor.post_process_masks(
            outputs.pred_masks.cpu(), inputs["original_sizes"].cpu(), inputs["reshaped_input_sizes"].cpu()
        )  # (boxes, 3, height, width)
        best = outputs.iou_scores[0].argmax(-1).cpu()
        named_masks = [(name, mask[index].numpy()) for name, mask, index in zip(names, masks, best)]
        named_masks = [(name, mask) for name, mask in named_masks if MIN_SHARE <= mask.mean() <= MAX_SHARE]
        counts = Counter(name for name, _ in named_masks)
        # a phrase that fits two things refers to neither
        return [
            {"name": name if counts[name] == 1 else "", "kind": name, "mask": encode_mask(mask)}
            for name, mask in named_masks
        ]


def match_phrase(label: str, phrases: Sequence[str]) -> str:
    """Finds the phrase that an answer's words are of; answers may be parts of phrases, or two in one. Empty: none."""
    words = set(label.lower().replace(".", " ").split())
    shares = [len(words & set(phrase.split())) / len(phrase.split()) for phrase in phrases]
    return phrases[int(np.argmax(shares))] if max(shares, default=0) > 0 else ""


def open_labeller(detector: Path, segmenter: Path, device: str, threshold: float) -> Labeller:
    by, nouns = choose_finder()
    check_folder(detector, "detector")
    check_folder(segmenter, "segmenter")
    return Labeller(
        load_network(detector, "AutoModelForZeroShotObjectDetection").to(device),
        load_processor(detector, "AutoProcessor"),
        load_network(segmenter, "SamModel").to(device),
        load_processor(segmenter, "SamProcessor"),
        nouns,
        by,
        threshold,
    )


def check_folder(folder: Path, what: str) -> None:
    if not (folder / "config.json").is_file() or not any(folder.glob("*.safetensors")):
        raise FileNotFoundError(
            f"There is no {what} in {folder}, expected config.json and *.safetensors: download {MODELS[what]} from "
            f"https://huggingface.co/{MODELS[what]} and give its folder."
        )
