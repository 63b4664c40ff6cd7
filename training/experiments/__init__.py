"""The papers' experiments on the toy world."""
