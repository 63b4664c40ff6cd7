"""A world's text encoder: a sentence becomes one token a fact, and a pooled vector.

It is trained to understand before FLUX sees a word: from its tokens, and from the pooled vector alone, linear
heads must read off the facts that the sentence states (a world's Language).
"""

import re
from collections.abc import Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .learner import Learner, LearnerPlan
from .world import Labels, Language

MAX_WORDS = 80
"""Words that are read; the rest of a longer text is ignored."""
UNKNOWN = 1
"""What a word outside the vocabulary becomes; 0 is padding."""
HOST_KEY = "toy"
"""Under which a host's tokenizer answers."""


def list_words(texts: Iterable[str]) -> tuple[str, ...]:
    """Lists the words of sentences and templates, what stands in braces aside, as a vocabulary."""
    return tuple(sorted(set(split_words(re.sub(r"{\w*}", " ", " ".join(texts))))))


def split_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def number_facts(text: str, language: Language) -> list[int]:
    """Gives for each word the number, from 1, of the fact that it helps to state: that of its context token."""
    parts = re.split(f"({'|'.join(map(re.escape, language.joints))})", text)
    return [min(1 + i // 2, language.max_facts) for i, part in enumerate(parts) for _ in split_words(part)]


class TextEncoder(nn.Module):
    """Texts to context (batch, max_facts, width) and pooled (batch, pooled)."""

    def __init__(self, language: Language):
        super().__init__()
        self.language, self.max_facts = language, language.max_facts
        width = language.width
        self.index = {word: i + 2 for i, word in enumerate(language.vocabulary)}
        self.embed = nn.Embedding(len(self.index) + 2, width)
        self.position = nn.Parameter(torch.randn(MAX_WORDS, width) * 0.02)
        self.slots = nn.Parameter(torch.randn(self.max_facts, width) * 0.02)
        layer = dict(d_model=width, nhead=4, dim_feedforward=4 * width, dropout=0.0, batch_first=True, norm_first=True)
        self.reader = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.pool = nn.Linear(self.max_facts * width, language.pooled)
        self.pool_norm = nn.LayerNorm(language.pooled, elementwise_affine=False)

    def tokenize(self, texts: Iterable[str]) -> Tensor:
        rows = [[self.index.get(word, UNKNOWN) for word in split_words(text)[:MAX_WORDS]] for text in texts]
        longest = max(1, max(map(len, rows)))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Turns tokens (batch, words) into context (batch, max_facts, width), pooled (batch, pooled)."""
        words = self.embed(tokens) + self.position[: tokens.shape[1]]
        x = torch.cat((self.slots.expand(len(tokens), -1, -1), words), dim=1)
        padding = torch.cat((tokens.new_zeros(len(tokens), self.max_facts, dtype=torch.bool), tokens == 0), dim=1)
        facts = self.norm(self.reader(x, src_key_padding_mask=padding)[:, : self.max_facts])
        return facts, self.pool_norm(self.pool(facts.flatten(1)))

    def encode(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        return self(self.tokenize(texts).to(self.slots.device))


def tokenize_as_host(encoder: TextEncoder, text: str, word_ids: bool = False) -> dict[str, list]:
    """Answers as a host's tokenizer: a row of words of weight 1, their ids those of their facts, 0 for padding."""
    words = encoder.tokenize([text])[0].tolist()
    facts = [*number_facts(text, encoder.language), 0]
    return {HOST_KEY: [[(word, 1.0, fact) if word_ids else (word, 1.0) for word, fact in zip(words, facts)]]}


class FactHeads(nn.Module):
    """Reads facts off context tokens and off the pooled vector; thrown away after training."""

    def __init__(self, language: Language):
        super().__init__()
        self.sizes = [len(values) for values in language.values.values()]
        self.max_facts = language.max_facts
        self.context = nn.Linear(language.width, sum(self.sizes))
        self.pooled = nn.Linear(language.pooled, self.max_facts * sum(self.sizes))

    def forward(self, context: Tensor, pooled: Tensor) -> list[list[Tensor]]:
        both = self.context(context), self.pooled(pooled).unflatten(1, (self.max_facts, -1))
        return [list(out.split(self.sizes, dim=-1)) for out in both]


def label_facts(facts: list[dict[str, str]], language: Language) -> Labels:
    """Says which value each fact has in each field; fields that a fact leaves out, and facts that are missing,
    have the first, which is nothing."""
    padded = [*facts, *[{}] * (language.max_facts - len(facts))][: language.max_facts]
    return [[values.index(fact.get(name, values[0])) for name, values in language.values.items()] for fact in padded]


class TextTraining(Learner):
    """Trains an encoder from nothing."""

    def __init__(self, language: Language, plan: LearnerPlan, seed: int = 0, device: str = "cpu"):
        torch.manual_seed(seed)
        self.encoder, self.heads = TextEncoder(language).to(device), FactHeads(language).to(device)
        modules = {"encoder": self.encoder, "heads": self.heads}
        super().__init__("text", modules, plan, plan.iterations // 20, weight_decay=0.01)
        self.rng = np.random.default_rng(seed)

    def step(self) -> float:
        assert self.rng is not None
        texts, labels = zip(*(self.encoder.language.draw(self.rng) for _ in range(self.plan.batch)))
        return self.update(self.measure_loss(texts, labels))

    def measure_loss(self, texts: Iterable[str], labels: Iterable[Labels]) -> Tensor:
        facts = torch.tensor(list(labels), device=self.parameters[0].device)
        return fact_loss(self.heads(*self.encoder.encode(texts)), facts)


def fact_loss(predictions: list[list[Tensor]], labels: Tensor) -> Tensor:
    """Adds up the cross-entropy of each field (batch, most, values), off the context and off the pooled vector."""
    losses = [
        [F.cross_entropy(field.flatten(0, 1), labels[..., k].flatten()) for k, field in enumerate(fields)]
        for fields in predictions
    ]
    zero = labels.new_zeros((), dtype=torch.float32)
    return sum((sum(by_field, zero) for by_field in losses), zero)
