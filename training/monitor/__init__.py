"""What becomes of a run for those who watch: listeners, and the files that they leave."""
