"""FLUX's text encoders and VAEs where there is no ComfyUI: a file a family, and a row in families.py."""
