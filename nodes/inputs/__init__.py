"""Inputs that several nodes share, and schemas that load on every host."""
