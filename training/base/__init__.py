"""The frozen base: gradients through it, what it takes, and how it rests where it does not fit (resting.py first)."""
