"""FLUX.1's text encoders and VAE where there is no ComfyUI."""
