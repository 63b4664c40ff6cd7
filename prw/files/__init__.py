"""What files of ours have in common: validated, memory-mapped, written whole or not at all, labelled in their metadata."""
