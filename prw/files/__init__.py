"""What our files have in common: values are checked, tensors memory-mapped, files written whole or not at all."""
