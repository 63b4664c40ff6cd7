"""A small world in which every answer can be measured.

A program draws scenes (scene.py, render.py) and describes them (words.py), and an oracle reads them back from pictures
(oracle.py). A small FLUX, its autoencoder and its text encoder are trained on them from nothing (../from_scratch/), then the five
stages of the curriculum.
"""
