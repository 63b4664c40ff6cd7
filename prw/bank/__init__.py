"""The bank: experts and routers in one safetensors file.

info: its metadata as JSON; shapes: which tensors it holds; bank: open, read, save; edit: merge, split, drop, rename;
compress: lower rank, shared matrices, fp8; summary: a text for people; importers: experts of others as banks.
"""
