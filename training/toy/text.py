"""The built-in world's text encoder: a sentence becomes one token a fact, and a pooled vector.

It is trained to understand before FLUX sees a word: from its tokens, and from the pooled vector alone, linear
heads must read off the facts that the sentence states (words.py).
"""

import re
from collections.abc import Callable, Iterable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..schedules import compute_rate_factor
from .scene import add_mark, draw_scene, pick
from .words import (
    ADD,
    ARTICLES,
    AT,
    CHANGES,
    EMPTY,
    GROUND,
    JOINTS,
    MAX_FACTS,
    PHRASES,
    REGROUND,
    VALUES,
    Fact,
    describe_addition,
    describe_change,
    describe_fact,
    draw_facts,
)

WIDTH = 96
POOLED = 128
MAX_WORDS = 80
"""Words that are read; the rest of a longer text is ignored."""
UNKNOWN = 1
"""What a word outside the vocabulary becomes; 0 is padding."""


def list_vocabulary() -> list[str]:
    """Lists every word of the sentences of words.py, but for "and" between them, which says nothing."""
    templates = [*ARTICLES, *AT, *GROUND, *EMPTY, *ADD, *REGROUND, "thing object"]
    templates += [phrase for group in (PHRASES, CHANGES) for phrases in group.values() for phrase in phrases]
    values = [value for values in list(VALUES.values())[1:] for value in values]
    text = re.sub(r"{\w*}", " ", " ".join([*templates, *values]))
    return sorted(set(split_words(text)))


def split_words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


def number_facts(text: str) -> list[int]:
    """Gives for each word the number, from 1, of the fact that it helps to state: that of its context token."""
    parts = re.split(f"({'|'.join(map(re.escape, JOINTS))})", text)
    return [min(1 + i // 2, MAX_FACTS) for i, part in enumerate(parts) for _ in split_words(part)]


class TextEncoder(nn.Module):
    """Texts to context (batch, MAX_FACTS, WIDTH) and pooled (batch, POOLED)."""

    def __init__(self):
        super().__init__()
        self.index = {word: i + 2 for i, word in enumerate(list_vocabulary())}
        self.embed = nn.Embedding(len(self.index) + 2, WIDTH)
        self.position = nn.Parameter(torch.randn(MAX_WORDS, WIDTH) * 0.02)
        self.slots = nn.Parameter(torch.randn(MAX_FACTS, WIDTH) * 0.02)
        layer = dict(d_model=WIDTH, nhead=4, dim_feedforward=4 * WIDTH, dropout=0.0, batch_first=True, norm_first=True)
        self.reader = nn.TransformerEncoder(nn.TransformerEncoderLayer(**layer), 3, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH, elementwise_affine=False)
        self.pool = nn.Linear(MAX_FACTS * WIDTH, POOLED)
        self.pool_norm = nn.LayerNorm(POOLED, elementwise_affine=False)

    def tokenize(self, texts: Iterable[str]) -> Tensor:
        rows = [[self.index.get(word, UNKNOWN) for word in split_words(text)[:MAX_WORDS]] for text in texts]
        longest = max(1, max(map(len, rows)))
        return torch.tensor([row + [0] * (longest - len(row)) for row in rows])

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens (batch, words) -> context (batch, MOST, WIDTH), pooled (batch, POOLED)."""
        words = self.embed(tokens) + self.position[: tokens.shape[1]]
        x = torch.cat((self.slots.expand(len(tokens), -1, -1), words), dim=1)
        padding = torch.cat((tokens.new_zeros(len(tokens), MAX_FACTS, dtype=torch.bool), tokens == 0), dim=1)
        facts = self.norm(self.reader(x, src_key_padding_mask=padding)[:, :MAX_FACTS])
        return facts, self.pool_norm(self.pool(facts.flatten(1)))

    def encode(self, texts: Iterable[str]) -> tuple[Tensor, Tensor]:
        return self(self.tokenize(texts).to(self.slots.device))


def tokenize_as_host(encoder: TextEncoder, text: str, word_ids: bool = False) -> dict[str, list]:
    """Answers as a host's tokenizer: a row of words of weight 1, their ids those of their facts, 0 for padding."""
    words = encoder.tokenize([text])[0].tolist()
    facts = [*number_facts(text), 0]
    return {"toy": [[(word, 1.0, fact) if word_ids else (word, 1.0) for word, fact in zip(words, facts)]]}


class FactHeads(nn.Module):
    """Reads facts off context tokens and off the pooled vector; thrown away after training."""

    def __init__(self):
        super().__init__()
        count = sum(map(len, VALUES.values()))
        self.context = nn.Linear(WIDTH, count)
        self.pooled = nn.Linear(POOLED, MAX_FACTS * count)

    def forward(self, context: Tensor, pooled: Tensor) -> list[list[Tensor]]:
        sizes = [len(values) for values in VALUES.values()]
        both = self.context(context), self.pooled(pooled).unflatten(1, (MAX_FACTS, -1))
        return [list(out.split(sizes, dim=-1)) for out in both]


def label_facts(facts: list[Fact]) -> list[list[int]]:
    """(MOST, fields): which value each fact has in each field."""
    padded = [*facts, *[Fact()] * (MAX_FACTS - len(facts))]
    return [[values.index(getattr(fact, name)) for name, values in VALUES.items()] for fact in padded]


def draw_text(rng: np.random.Generator) -> tuple[str, list[Fact]]:
    """Draws a caption, an instruction, or an empty text, and the facts that it states."""
    if rng.random() < 0.05:
        return "", []
    facts = draw_facts(rng, add_mark(rng, draw_scene(rng), 0.4), keep=rng.choice([0.4, 0.7, 1.0]))
    joint = pick(rng, JOINTS)
    return joint.join(_phrase_fact(rng, fact) for fact in facts), facts


def _phrase_fact(rng: np.random.Generator, fact: Fact) -> str:
    """Describes a fact, as a change or an addition now and then."""
    details = [name for name in CHANGES if getattr(fact, name)] if fact.kind in ("thing", "ground") else []
    if not details or rng.random() < 0.6:
        return describe_fact(rng, fact)
    if fact.kind == "thing" and rng.random() < 0.3:
        return describe_addition(rng, fact)
    return describe_change(rng, fact, pick(rng, details))


def train_text(
    iterations: int, batch: int = 256, seed: int = 0, rate: float = 1e-3, report: Callable[[int], None] | None = None
) -> TextEncoder:
    """Trains an encoder from nothing; `report` is told now and then which iteration is done."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    encoder, heads = TextEncoder(), FactHeads()
    parameters = [*encoder.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.01)
    for i in range(iterations):
        texts, facts = zip(*(draw_text(rng) for _ in range(batch)))
        labels = torch.tensor([label_facts(stated) for stated in facts])
        loss = fact_loss(heads(*encoder.encode(texts)), labels)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        for group in optimizer.param_groups:
            group["lr"] = rate * compute_rate_factor("cosine", i, iterations, iterations // 20)
        optimizer.step()
        if report and i % 100 == 0:
            report(i)
    return encoder.eval().requires_grad_(False)


def fact_loss(predictions: list[list[Tensor]], labels: Tensor) -> Tensor:
    """Adds up the cross-entropy of each field (batch, MAX_FACTS, values), off the context and off the pooled vector."""
    losses = [
        [F.cross_entropy(field.flatten(0, 1), labels[..., k].flatten()) for k, field in enumerate(fields)]
        for fields in predictions
    ]
    return sum((sum(by_field, torch.zeros(())) for by_field in losses), torch.zeros(()))
