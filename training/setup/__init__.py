"""From a recipe to a run: FLUX, encoders, and a dataset a stage."""
