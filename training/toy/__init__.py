"""A small world in which every answer can be measured.

Scenes are drawn by a program (scene.py, render.py), told in words (words.py) and read back from pictures by an
oracle (oracle.py). On it a small FLUX, its autoencoder and its text encoder are trained from nothing, and then
the five stages of the curriculum.
"""
