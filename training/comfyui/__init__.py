"""Training within ComfyUI: its FLUX under training, its encoders, runs for nodes, and a server of our own."""
