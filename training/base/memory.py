"""Memory of a device, in bytes."""

import torch


def find_free_memory(device: torch.device | str) -> int | None:
    """Finds how much is free; None where nobody can tell, or where memory is the machine's."""
    device = torch.device(device)
    if device.type != "cuda":
        return None
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


def format_bytes(size: float) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**30 else f"{size / 2**20:.1f} MiB"
