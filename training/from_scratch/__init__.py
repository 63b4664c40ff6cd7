"""Small models trained from nothing on a world that a program draws: autoencoder, text encoder, FLUX, and what a bank can do.

A world (world.py) is what is drawn and said; the rest is the same for all of them: vae.py and text.py, FLUX's pretraining
(pretrain.py), their training in pieces that can be stopped (learner.py, make.py), files (store.py), evaluation (evaluate.py,
ablate.py).
"""
