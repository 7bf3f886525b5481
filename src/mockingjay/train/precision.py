"""In which numbers matrix products are computed."""

from pathlib import Path
from typing import Literal

import torch

from mockingjay.core.errors import MachineError

Precision = Literal["auto", "float32", "bfloat16"]
_INSTRUCTIONS = ("avx512_bf16", "amx_bf16", "bf16", "svebf16")  # as Linux spells them, x86 and Arm


def precision_of(precision: Precision, device: torch.device) -> torch.dtype:
    """Choose the type of matrix products; weights and sums stay float32.

    Raises:
        MachineError: bfloat16 was asked for where it would be emulated, on a processor 80 times slower than float32.
    """
    cuda = device.type == "cuda"
    # By default torch takes emulation, which is all that a card older than Ampere has, for support.
    able = torch.cuda.is_bf16_supported(including_emulation=False) if cuda else _processor_has_bfloat16()
    if precision == "bfloat16" and not able:
        raise MachineError(
            f"train.precision: bfloat16 has no instruction on this machine's {device.type}, expected a processor or "
            "card that has one; set train.precision to float32"
        )
    wanted = precision == "bfloat16" or (precision == "auto" and able and cuda)
    return torch.bfloat16 if wanted else torch.float32


def autocast(precision: Precision, device: torch.device) -> torch.autocast:
    """Open the context in which a forward pass makes its matrix products in the type that `precision_of` chooses."""
    dtype = precision_of(precision, device)
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def _processor_has_bfloat16() -> bool:
    """Read the processor's flags, because torch has no public name for them in all the versions we run on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return any(name in flags.split() for name in _INSTRUCTIONS)
