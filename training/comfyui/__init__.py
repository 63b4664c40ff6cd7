"""Training within ComfyUI: finding it (find.py), its FLUX (training.py), its encoders (data.py), runs for nodes (run.py)."""
