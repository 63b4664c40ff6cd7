"""One's own subject: its recipe, the samples of its photos, its vectors and weights (ICO), and the run that makes them."""
