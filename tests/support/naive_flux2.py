"""Equations 2 to 7 on FLUX.2 written out naively: one joint sequence [text, picture, sources], one mask.

Its own code on purpose: it reads a FLUX.2's weights in the public layout from a dict and shares nothing with the pack.
Every row of the sequence has its own modulation, so a source is rows at timestep 0 that see only themselves.
"""

import math

import torch

TEXT, PICTURE, FIRST_SOURCE = 0, 1, 2
HEAD = 128


def silu(x):
    return x / (1 + torch.exp(-x))


def gate(x):
    a, b = x.chunk(2, -1)
    return silu(a) * b


def normalize(x):
    x = x - x.mean(-1, keepdim=True)
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6)


def normalize_rms(x, scale):
    return x / torch.sqrt((x * x).mean(-1, keepdim=True) + 1e-6) * scale


def embed(s):
    angles = 1000 * s[:, None] * torch.exp(-math.log(10000) * torch.arange(128) / 128)
    return torch.cat([angles.cos(), angles.sin()], -1)


def softmax(x):
    e = torch.exp(x - x.amax(-1, keepdim=True))
    return e / e.sum(-1, keepdim=True)


def rotate(x, ids):
    """x (batch, heads, tokens, 128), ids (tokens, 4): pair by pair, as complex numbers."""
    frequencies = 2000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    angles = (ids.double()[:, :, None] * frequencies).flatten(1)
    pairs = torch.view_as_complex(x.double().reshape(*x.shape[:-1], 64, 2).contiguous())
    return torch.view_as_real(pairs * torch.polar(torch.ones_like(angles), angles)).reshape(x.shape).float()


def flatten(latent):
    return torch.stack([latent[:, :, i, j] for i in range(latent.shape[2]) for j in range(latent.shape[3])], 1)


def place(latent, position, number, rows, columns):
    """(tokens, 4): where a source lies over, or beside, a picture of rows x columns."""
    height, width = latent.shape[-2:]
    if position == "reference":
        return torch.tensor([[10.0 * number, i, j, 0] for i in range(height) for j in range(width)])
    down, right = rows / height, columns / width
    return torch.tensor(
        [[0, (i + 0.5) * down - 0.5, (j + 0.5) * right - 0.5, 0] for i in range(height) for j in range(width)]
    )


class NaiveFlux2:
    """One forward of FLUX.2 with sources."""

    def __init__(self, weights):
        self.w = {key: value.float() for key, value in weights.items()}
        self.routes = {}

    def linear(self, name, x):
        return x @ self.w[name + ".weight"].T

    def count(self, kind):
        return len({key.split(".")[1] for key in self.w if key.startswith(kind + ".")})

    def vec(self, t, guidance):
        v = self.linear("time_in.out_layer", silu(self.linear("time_in.in_layer", embed(t))))
        if guidance is not None and "guidance_in.in_layer.weight" in self.w:
            v = v + self.linear("guidance_in.out_layer", silu(self.linear("guidance_in.in_layer", embed(guidance))))
        return silu(v)[:, None]

    def add_experts(self, bank, source, block, h, k, v):
        """Eq. 2 to 4 for one source's rows; adds to k and v in place."""
        info, names, per = bank.info, source["names"], source.get("per", "sample")
        logits = h @ bank.tensors[f"routers.{source['stage']}.{block}.weight"].float()
        if per == "sample":
            logits = logits.mean(1, keepdim=True).expand_as(logits)
        p = softmax(logits)
        self.routes[block] = chosen = p.argmax(-1)
        for b in range(h.shape[0]):
            for i in range(h.shape[1]):
                e = int(chosen[b, i])
                expert = info.experts[names[e]]
                for target, out in (("k", k), ("v", v)):
                    down, up = (
                        bank.tensors[f"experts.{names[e]}.{block}.{target}.{part}"].float() for part in ("down", "up")
                    )
                    change = up @ (down @ h[b, i]) * expert.alpha / expert.rank
                    out[b, i] += source.get("strength", 1.0) * p[b, i, e] * change

    def attend(self, qkv, scales, block, h):
        """Attention of the whole sequence; `scales`: the q and k norms' weights, row by row."""
        q, k, v = (part.clone() for part in qkv.chunk(3, -1))
        for n, source in enumerate(self.sources):
            rows = self.owner == FIRST_SOURCE + n
            if self.bank is not None and "stage" in source:
                own_k, own_v = k[:, rows], v[:, rows]
                self.add_experts(self.bank, source, block, h[:, rows], own_k, own_v)
                k[:, rows], v[:, rows] = own_k, own_v
        heads = [part.unflatten(-1, (-1, HEAD)).transpose(1, 2) for part in (q, k, v)]
        q, k = (rotate(normalize_rms(part, scale), self.ids) for part, scale in zip(heads, scales))
        text, picture = (int((self.owner == owner).sum()) for owner in (TEXT, PICTURE))
        out = self.attention(q, k, heads[2], self.find_mask(), text, picture)
        return out.transpose(1, 2).flatten(2) * (0.5 if self.halved else 1.0)

    def attention(self, q, k, v, bias, text, picture):
        """What subclasses look into, or change; the first rows are `text` of the prompt and `picture` of the picture."""
        return softmax(q @ k.transpose(-1, -2) / math.sqrt(HEAD) + bias) @ v

    def find_mask(self):
        """This block's; an extra one is over text and picture only, the same in all blocks or one for each."""
        mask, self.block = self.mask.clone(), self.block + 1
        if self.extra_mask is not None:
            more = self.extra_mask if torch.is_tensor(self.extra_mask) else self.extra_mask[self.block - 1]
            mask[: len(more), : len(more)] += more
        return mask

    def add_control(self, rows, control, kind, index, first):
        """What a ControlNet adds to the picture's rows behind a block."""
        if control is not None and index < len(control[kind]):
            add = control[kind][index]
            rows[:, first : first + add.shape[1]] += add
        return rows

    def run_double(self, block, x, mod):
        text, n = self.owner == TEXT, int((self.owner == TEXT).sum())

        def split(layer, x):
            return torch.cat(
                [self.linear(f"{block}.{side}_{layer}", part) for side, part in (("txt", x[:, :n]), ("img", x[:, n:]))],
                1,
            )

        shift1, scale1, gate1, shift2, scale2, gate2 = mod.chunk(6, -1)
        h = (1 + scale1) * normalize(x) + shift1
        scales = [
            torch.where(
                text[:, None],
                self.w[f"{block}.txt_attn.norm.{which}_norm.scale"],
                self.w[f"{block}.img_attn.norm.{which}_norm.scale"],
            )
            for which in ("query", "key")
        ]
        x = x + gate1 * split("attn.proj", self.attend(split("attn.qkv", h), scales, block, h))
        h = (1 + scale2) * normalize(x) + shift2
        return x + gate2 * split("mlp.2", gate(split("mlp.0", h)))

    def run_single(self, block, x, mod):
        shift, scale, gate1 = mod.chunk(3, -1)
        h = (1 + scale) * normalize(x) + shift
        both, width = self.linear(f"{block}.linear1", h), x.shape[-1]
        scales = [self.w[f"{block}.norm.{which}_norm.scale"] for which in ("query", "key")]
        attention = self.attend(both[..., : 3 * width], scales, block, h)
        return x + gate1 * self.linear(f"{block}.linear2", torch.cat([attention, gate(both[..., 3 * width :])], -1))

    def lay_out(self, x, context, sources):
        """Who owns each row, where it lies, and what it may read."""
        rows, columns = x.shape[-2:]
        text, picture = context.shape[1], rows * columns
        beside = [] if self.reference is None else place(self.reference, "reference", 1, rows, columns).tolist()
        picture += len(beside)
        sizes = [text, picture, *(s["latent"].shape[-2] * s["latent"].shape[-1] for s in sources)]
        self.owner = torch.cat([torch.full((size,), i) for i, size in enumerate(sizes)])
        self.ids = torch.cat(
            [
                torch.tensor([[0.0, 0, 0, i] for i in range(text)]),
                torch.tensor([[0.0, i, j, 0] for i in range(rows) for j in range(columns)] + beside),
                *(
                    place(s["latent"], s.get("position", "reference"), s.get("number", 1), rows, columns)
                    for s in sources
                ),
            ]
        )
        asks, answers = self.owner[:, None], self.owner[None]
        self.mask = torch.zeros(len(self.owner), len(self.owner))
        self.mask[(asks >= FIRST_SOURCE) & (asks != answers)] = -torch.inf
        for n, source in enumerate(sources):
            if "log_bias" in source:  # a number, or one for each row of text and picture
                bias = torch.as_tensor(source["log_bias"]).expand(text + picture)
                self.mask[: text + picture, self.owner == FIRST_SOURCE + n] += bias[:, None]

    def __call__(
        self,
        x,
        t,
        context,
        pooled=None,
        guidance=None,
        sources=(),
        bank=None,
        source_time=None,
        control=None,
        halve_attention=False,
        reference=None,
        extra_mask=None,
    ):
        """sources: dicts with latent and perhaps stage, names, per, strength, log_bias, position, number.

        reference: a latent whose rows stand beside the picture's and are its own kind.
        """
        self.sources, self.bank, self.routes = sources, bank, {}
        self.halved, self.reference, self.extra_mask, self.block = halve_attention, reference, extra_mask, 0
        self.lay_out(x, context, sources)
        n_text, n_picture, batch = context.shape[1], x.shape[-2] * x.shape[-1], len(x)
        n_joint = int((self.owner < FIRST_SOURCE).sum()) - n_text
        n_sources = len(self.owner) - n_text - n_joint
        live = self.vec(t, guidance)
        still = self.vec(
            torch.zeros(batch) if source_time is None else source_time,
            None if guidance is None else torch.ones_like(guidance),
        )

        def modulate(text, picture):
            parts = (text, live, n_text), (picture, live, n_joint), (picture, still, n_sources)
            return torch.cat([self.linear(name, vec).expand(-1, count, -1) for name, vec, count in parts], 1)

        double = modulate("double_stream_modulation_txt.lin", "double_stream_modulation_img.lin")
        single = modulate("single_stream_modulation.lin", "single_stream_modulation.lin")
        own = [flatten(x)] if reference is None else [flatten(x), flatten(reference).expand(batch, -1, -1)]
        pictures = [*own, *(flatten(s["latent"]).expand(batch, -1, -1) for s in sources)]
        rows = torch.cat([self.linear("txt_in", context), self.linear("img_in", torch.cat(pictures, 1))], 1)
        for i in range(self.count("double_blocks")):
            rows = self.run_double(f"double_blocks.{i}", rows, double)
            rows = self.add_control(rows, control, "input", i, n_text)
        for i in range(self.count("single_blocks")):
            rows = self.run_single(f"single_blocks.{i}", rows, single)
            rows = self.add_control(rows, control, "output", i, n_text)
        shift, scale = self.linear("final_layer.adaLN_modulation.1", live).chunk(2, -1)
        rows = (1 + scale) * normalize(rows[:, n_text : n_text + n_picture]) + shift
        return self.linear("final_layer.linear", rows).transpose(1, 2).reshape(x.shape)
