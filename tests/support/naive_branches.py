"""Two branches written out naively: explicit attention matrices, one row and one head at a time."""

import math

import torch
from naive import Naive, softmax_attention
from naive_flux2 import NaiveFlux2


def softmax(values):
    top = max(values)
    e = [math.exp(v - top) for v in values]
    return [v / sum(e) for v in e]


def sum_noun_attention(q, k, noun, prompt, sharpen):
    """Per row: its attention to the prompt's words, sharpened if asked for, summed over the noun's."""
    p = torch.zeros(q.shape[0], prompt)
    for i in range(q.shape[0]):
        row = softmax([float(q[i] @ k[j]) / math.sqrt(q.shape[1]) for j in range(prompt)])
        p[i] = torch.tensor(softmax([10 * value for value in row]) if sharpen else row)
    return [float(p[i, list(noun)].sum()) for i in range(q.shape[0])]


def contrast(heat):
    return [500 * value for value in softmax([10 * value for value in heat])]


class Branch:
    """`role`: "auxiliary" fills `outputs`, "concept" blends with what they hold, "look" measures attention alone; None is
    the plain formula."""

    def __init__(self, weights, role, words, outputs, strength=0.0, blocks=(0, 3), sources=False):
        super().__init__(weights)
        self.role, self.words, self.outputs, self.strength = role, words, outputs, strength
        self.range, self.with_sources = blocks, sources
        self.seen, self.heat, self.kept = 0, [], {}

    def attention(self, q, k, v, bias, text, picture):
        out = softmax_attention(q, k, v, bias)
        number, self.seen = self.seen, self.seen + 1
        if self.role is None or not self.range[0] <= number <= self.range[1]:
            return out
        mass = torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias, -1)
        rows, noun, prompt = slice(text, text + picture), *self.words
        for b in range(len(q)):
            for h in range(q.shape[1]):
                spot = (number, b, h)
                heat = sum_noun_attention(q[b, h, rows], k[b, h], noun, prompt, sharpen=self.role != "look")
                text_output = mass[b, h, rows, :text] @ v[b, h, :text]
                if self.role == "look":
                    self.heat.append((b, heat))
                elif self.role == "auxiliary":
                    self.outputs[spot] = text_output, contrast([1 - value for value in heat])
                else:
                    if self.with_sources:
                        text_output = text_output + mass[b, h, rows, text + picture :] @ v[b, h, text + picture :]
                    other, elsewhere = self.outputs[spot]
                    mine, self.kept[spot] = contrast(heat), []
                    for i in range(picture):
                        keep, take = softmax([mine[i], self.strength * elsewhere[i]])
                        self.kept[spot].append(keep)
                        out[b, h, text + i] += (keep - 1) * text_output[i] + take * other[i]
        return out


class NaiveBranch(Branch, Naive):
    """A branch of FLUX.1."""


class NaiveBranchFlux2(Branch, NaiveFlux2):
    """A branch of FLUX.2."""
