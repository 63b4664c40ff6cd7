"""The method inside ComfyUI: patches of its FLUX, sources in CONDITIONING, hooks in its samplers. Of prw/ only this room imports the host."""
