"""Encoded samples on the disk: written by encode.py, read by lessons.py while training goes on."""
