"""A world of stickers on scenes, in which every answer can be measured.

A program draws scenes (grounds.py, scene.py, render.py) of things that are pictures (stickers.py), named ones and ones
that only a source can show, and speaks of them (words.py); questions know the truth (tasks.py, edits.py), an oracle reads
pictures by comparing with what it knows (oracle.py), and score.py judges answers.
"""
