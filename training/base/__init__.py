"""The frozen base: gradients through it, and where it is kept where it does not fit (placement.py first)."""
