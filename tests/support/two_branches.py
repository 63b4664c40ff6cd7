"""Two branches of a FLUX in the host: a prompt with marked words, an auxiliary prompt, and the patch that blends them."""

from cologen.prw.personalization.dual_branch import BlendSettings
from cologen.prw.personalization.marked_prompt import MARKED_TOKENS, MarkedTokens
from sampling import conditioning

CONCEPT, OTHER = MarkedTokens((1, 2), 4), MarkedTokens((3,), 5)
ALL_BLOCKS = (0, 3)
KEEP, TAKE = -1e6, 1e6
"""Strengths at which a row takes the one or the other branch's text alone."""


def marked_conditioning(seed=4, words=CONCEPT, **how):
    ((text, options),) = conditioning(seed, **how)
    return [[text, {**options, MARKED_TOKENS: words}]]


def attach_branches(model, strength=0.7, end=0.5, blocks=ALL_BLOCKS, sources=False, seed=11, auxiliary=None):
    from cologen.prw.comfyui.dual_branch_sampling import DualBranch

    blend = BlendSettings(strength, end, *blocks, sources)
    return DualBranch(auxiliary or marked_conditioning(6, OTHER), seed, blend).attach(model)
