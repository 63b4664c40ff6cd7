"""The bank: experts and routers in one safetensors file. What it says of itself (info), which tensors it holds (shapes), and what is done with it."""
