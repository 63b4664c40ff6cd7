"""FLUX itself, one file a family, and what families share: blocks, formulas, checkpoints, the Euler sampler.

Nothing here knows of sources or experts, but for how a family modulates and places a source (families.py).
"""
