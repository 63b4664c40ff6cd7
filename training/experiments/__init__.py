"""The papers' experiments on the built-in worlds."""
