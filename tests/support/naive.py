"""Equations 2 to 7 written out once more, naively: one joint sequence, one mask, explicit softmax.

Its own code on purpose: it reads the weights of a FLUX in the public layout from a dict and shares
nothing with the pack.
"""

import math

import torch

NEGATIVE = float("-inf")


def linear(w, name, x):
    return x @ w[name + ".weight"].T + w[name + ".bias"]


def silu(x):
    return x / (1 + torch.exp(-x))


def gelu(x):
    return 0.5 * x * (1 + torch.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))


def layer_norm(x):
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(((x - mean) ** 2).mean(-1, keepdim=True) + 1e-6)


def rms(x, scale):
    return x / torch.sqrt((x**2).mean(-1, keepdim=True) + torch.finfo(x.dtype).eps) * scale


def sinusoid(t):
    i = torch.arange(128)
    angle = 1000 * t[:, None] * torch.exp(-math.log(10000) * i / 128)
    return torch.cat([angle.cos(), angle.sin()], -1)


def embed(w, name, x):
    return linear(w, name + ".out_layer", silu(linear(w, name + ".in_layer", x)))


def modulation(w, name, vec, parts):
    return linear(w, name + ".lin", silu(vec))[:, None].chunk(parts, -1)


def tokens(x):
    b, c, h, w = x.shape
    x = torch.cat([x, x[:, :, : h % 2]], 2)
    x = torch.cat([x, x[..., : w % 2]], 3)
    rows, cols = x.shape[2] // 2, x.shape[3] // 2
    out = torch.empty(b, rows * cols, c * 4)
    for i in range(rows):
        for j in range(cols):
            out[:, i * cols + j] = x[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2].reshape(b, -1)
    return out, rows, cols


def rotate(x, positions):
    """x (batch, heads, tokens, 128), positions (tokens, 3): RoPE pair by pair, as complex numbers."""
    angles = []
    for axis, dim in enumerate((16, 56, 56)):
        omega = 10000.0 ** (-torch.arange(0, dim, 2, dtype=torch.float64) / dim)
        angles.append(positions[:, axis : axis + 1].double() * omega)
    phase = torch.polar(torch.ones(()).double(), torch.cat(angles, 1))
    z = torch.view_as_complex(x.double().reshape(*x.shape[:-1], -1, 2).contiguous()) * phase
    return torch.view_as_real(z).reshape(x.shape).to(x.dtype)


def split_heads(x, n=2):
    b, length, d = x.shape
    return x.reshape(b, length, n, d // n).transpose(1, 2)


def merge_heads(x):
    return x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1)


def softmax_attention(q, k, v, bias):
    score = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1]) + bias
    score = score - score.amax(-1, keepdim=True)
    e = score.exp()
    return (e / e.sum(-1, keepdim=True)) @ v


class Naive:
    """One forward of FLUX with sources, all in one sequence [text, noise, source 1, source 2, ...]."""

    def __init__(self, weights, depth=2, single=2, scale=0.3611, shift=0.1159):
        self.w = {k: v.float() for k, v in weights.items()}
        self.depth, self.single, self.scale, self.shift = depth, single, scale, shift

    def expert(self, bank, name, block, target, x):
        down = bank.tensors[f"experts.{name}.{block}.{target}.down"].float()
        up = bank.tensors[f"experts.{name}.{block}.{target}.up"].float()
        info = bank.info.experts[name]
        return (x @ down.T) @ up.T * info.alpha / info.rank

    def compute_residuals(self, bank, stage, names, block, h, per="sample", strength=1.0):
        """Eq. 2-4: what the chosen expert adds to K and V, and which it was."""
        weight = bank.tensors[f"routers.{stage}.{block}.weight"].float()
        w = (h.mean(1, keepdim=True) if per == "sample" else h) @ weight
        p = torch.exp(w - w.amax(-1, keepdim=True))
        p = p / p.sum(-1, keepdim=True)
        add, chosen = {}, p.argmax(-1)
        for target in ("k", "v"):
            add[target] = torch.zeros_like(h)
            for b in range(h.shape[0]):
                for i in range(h.shape[1]):
                    row = i if per == "token" else 0
                    e = int(chosen[b, row])
                    y = self.expert(bank, names[e], block, target, h[b, i])
                    add[target][b, i] = strength * p[b, row, e] * y
        self.routes[block] = chosen
        return add

    def add_residuals(self, bank, source, block, h, q, k, v):
        strength = source.get("strength", 1.0)
        knobs = source.get("per", "sample"), strength[block] if isinstance(strength, dict) else strength
        add = self.compute_residuals(bank, source["stage"], source["names"], block, h, *knobs)
        return q, k + add["k"], v + add["v"]

    def add_output_residual(self, bank, source, block, y):
        """What a double block's output projection gave."""
        return y

    def find_guidance(self, source, guidance):
        """The guidance in a source's modulation."""
        return None if guidance is None else torch.ones_like(guidance)

    def attention(self, q, k, v, bias, text, picture):
        """Of one block; the first rows are the text's, the next the picture's."""
        return softmax_attention(q, k, v, bias)

    def vec(self, t, guidance, pooled):
        vec = embed(self.w, "time_in", sinusoid(t)) + embed(self.w, "vector_in", pooled)
        if guidance is not None and "guidance_in.in_layer.weight" in self.w:
            vec = vec + embed(self.w, "guidance_in", sinusoid(guidance))
        return vec

    def modulate(self, name, vec, parts):
        return modulation(self.w, name, vec, parts)

    def modulate_last(self, vec):
        return linear(self.w, "final_layer.adaLN_modulation.1", silu(vec))[:, None].chunk(2, -1)

    def __call__(
        self,
        x,
        t,
        context,
        pooled,
        guidance=None,
        sources=(),
        bank=None,
        source_time=None,
        control=None,
        halve_attention=False,
        reference=None,
        extra_mask=None,
        image_positions=None,
        concat=None,
    ):
        """sources: dicts with latent, stage, names and optionally per, strength, log_bias, positions."""
        w, self.routes = self.w, {}
        b = len(x)
        img, rows, cols = tokens(x if concat is None else torch.cat([x, concat.expand(b, -1, -1, -1)], 1))
        grid = torch.tensor([[0, i, j] for i in range(rows) for j in range(cols)])
        wanted = img.shape[1]
        image_grid = grid if image_positions is None else image_positions
        if reference is not None:  # Kontext: tokens beside the noise, with queries of their own
            more, r_rows, r_cols = tokens(reference)
            img = torch.cat([img, more], 1)
            more_grid = torch.tensor([[1, i, j] for i in range(r_rows) for j in range(r_cols)])
            image_grid = torch.cat([grid, more_grid])
        positions = [torch.zeros(context.shape[1], 3), image_grid]
        txt, streams = linear(w, "txt_in", context), [linear(w, "img_in", img)]
        vecs = [self.vec(t, guidance, pooled)]
        for s in sources:
            s_tokens, s_rows, s_cols = tokens((s["latent"] - self.shift) * self.scale)
            assert (s_rows, s_cols) == (rows, cols) or "positions" in s
            positions.append(s.get("positions", grid))
            streams.append(linear(w, "img_in", s_tokens).expand(b, -1, -1))
            time = torch.zeros(b) if source_time is None else source_time
            vecs.append(self.vec(time, self.find_guidance(s, guidance), pooled))
        lengths = [txt.shape[1]] + [s.shape[1] for s in streams]
        owner = torch.cat([torch.full((n,), i) for i, n in enumerate(lengths)])
        positions = torch.cat(positions)

        # who sees whom: text (0) and noise (1) everything, source i only itself
        mask = torch.zeros(len(owner), len(owner))
        for q in range(len(owner)):
            for k in range(len(owner)):
                if owner[q] >= 2 and owner[k] != owner[q]:
                    mask[q, k] = NEGATIVE
        for i, s in enumerate(sources):
            bias = s.get("log_bias")
            if bias is not None:  # (text + noise,) rows
                mask[: lengths[0] + lengths[1]][:, owner == i + 2] += bias[:, None]

        asked = []

        def attend(q, k, v):
            bias = mask.clone()
            if extra_mask is not None:  # over text and noise only, one for all blocks or one for each
                more = extra_mask if torch.is_tensor(extra_mask) else extra_mask[len(asked)]
                bias[: len(more), : len(more)] += more
            asked.append(1)
            out = self.attention(rotate(q, positions), rotate(k, positions), v, bias, txt.shape[1], wanted)
            return 0.5 * out if halve_attention else out

        def project(qkv, norm, h, source, block):
            q, k, v = qkv.chunk(3, -1)
            if source is not None and bank is not None:
                q, k, v = self.add_residuals(bank, source, block, h, q, k, v)
            q, k, v = split_heads(q), split_heads(k), split_heads(v)
            return rms(q, w[norm + ".query_norm.scale"]), rms(k, w[norm + ".key_norm.scale"]), v

        who = [None, *sources]
        for n in range(self.depth):
            p = f"double_blocks.{n}"
            tm = self.modulate(f"{p}.txt_mod", vecs[0], 6)
            ims = [self.modulate(f"{p}.img_mod", vec, 6) for vec in vecs]
            parts = [
                project(
                    linear(w, f"{p}.txt_attn.qkv", (1 + tm[1]) * layer_norm(txt) + tm[0]),
                    f"{p}.txt_attn.norm",
                    None,
                    None,
                    p,
                )
            ]
            for s, m, src in zip(streams, ims, who):
                h = (1 + m[1]) * layer_norm(s) + m[0]
                parts.append(project(linear(w, f"{p}.img_attn.qkv", h), f"{p}.img_attn.norm", h, src, p))
            out = attend(*(torch.cat([part[i] for part in parts], 2) for i in range(3)))
            outs = merge_heads(out).split(lengths, 1)

            def finish(side, x, m, attn, source=None, p=p):
                x = x + m[2] * self.add_output_residual(bank, source, p, linear(w, f"{p}.{side}_attn.proj", attn))
                h = (1 + m[4]) * layer_norm(x) + m[3]
                return x + m[5] * linear(w, f"{p}.{side}_mlp.2", gelu(linear(w, f"{p}.{side}_mlp.0", h)))

            txt = finish("txt", txt, tm, outs[0])
            streams = [finish("img", *each) for each in zip(streams, ims, outs[1:], who)]

            if control is not None:
                streams[0] = streams[0] + control["input"][n]

        streams = [torch.cat([txt, streams[0]], 1), *streams[1:]]
        lengths = [streams[0].shape[1]] + lengths[2:]
        for n in range(self.single):
            p = f"single_blocks.{n}"
            parts, mlps, mods = [], [], [self.modulate(f"{p}.modulation", vec, 3) for vec in vecs]
            for s, m, src in zip(streams, mods, who):
                h = (1 + m[1]) * layer_norm(s) + m[0]
                both = linear(w, f"{p}.linear1", h)
                d = s.shape[-1]
                parts.append(project(both[..., : 3 * d], f"{p}.norm", h, src, p))
                mlps.append(gelu(both[..., 3 * d :]))
            out = attend(*(torch.cat([part[i] for part in parts], 2) for i in range(3)))
            outs = merge_heads(out).split(lengths, 1)
            streams = [
                s + m[2] * linear(w, f"{p}.linear2", torch.cat([o, mlp], -1))
                for s, m, o, mlp in zip(streams, mods, outs, mlps)
            ]

            if control is not None:
                streams[0][:, txt.shape[1] :] += control["output"][n]

        img = streams[0][:, txt.shape[1] :][:, :wanted]
        shift, scale = self.modulate_last(vecs[0])
        img = linear(w, "final_layer.linear", (1 + scale) * layer_norm(img) + shift)
        out = torch.empty(b, 16, rows * 2, cols * 2)
        for i in range(rows):
            for j in range(cols):
                out[:, :, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = img[:, i * cols + j].reshape(b, 16, 2, 2)
        return out[..., : x.shape[2], : x.shape[3]]
