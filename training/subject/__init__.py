"""One's own subject: its recipe, its photos as lessons, its vectors and weights (ICO), and the run that makes them."""
