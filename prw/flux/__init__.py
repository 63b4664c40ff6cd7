"""FLUX itself, one file a family, and what families share: formulas, checkpoints, the Euler sampler. Nothing here knows of sources or experts."""
