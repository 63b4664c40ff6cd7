"""Recipes: a run as data. Stages and settings, read from TOML and checked before anything starts."""
