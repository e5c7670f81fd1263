"""Where tensors live, and in what they are multiplied."""

from __future__ import annotations

import torch

from seqrec import processes
from seqrec.errors import SettingsError


def choose_device(name: str) -> torch.device:
    """The device of that name, or for "auto" the best there is.

    Raises:
        SettingsError: there is no such device here, or several processes cannot share it.
    """
    several = processes.count() > 1
    if name == "mps" and several:
        raise SettingsError("device: expected 'cpu' or 'cuda' with several processes. Got 'mps'. Start one.")
    if name == "auto":
        mps = torch.backends.mps.is_available() and not several
        name = "cuda" if torch.cuda.is_available() else "mps" if mps else "cpu"
    if name == "cuda" and several:
        name = f"cuda:{processes.local_rank()}"  # one for each on its machine
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise SettingsError(
            f"device: expected a device that this machine has. Got {name!r}. Use 'auto' or 'cpu'."
        ) from error
    return device


def in_bfloat16(precision: str, device: torch.device) -> bool:
    """Whether to multiply in bfloat16."""
    return precision == "bfloat16" or (
        precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported()
    )
