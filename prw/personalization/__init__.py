"""Sampling for one's own subject (ICO, DCI): concept tokens, marked prompts, two branches, a shared step."""
