"""Where matrix products run: an array-API namespace and one of its devices, passed on explicitly.

References
----------
Python array API standard, 2023.12.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np

from brainlocus.core.errors import import_extra

__all__ = ["HOST", "Device", "named_device"]


@dataclass(frozen=True, slots=True)
class Device:
    """An array-API namespace (NumPy, CuPy, PyTorch through array-api-compat) and what it calls the device."""

    xp: Any
    device: Any = None

    @property
    def is_host(self) -> bool:
        """Whether arrays are NumPy's own."""
        return self.xp is np

    def put(self, values: np.ndarray) -> Any:
        """Return the values on the device; on the host without a copy where they are contiguous."""
        if self.is_host:
            return np.ascontiguousarray(values)
        # Arrays that only may be read (memory maps) are copied: PyTorch shares memory and wants it writable.
        given = np.ascontiguousarray(values)
        return self.xp.asarray(given if given.flags.writeable else given.copy(), device=self.device)

    def get(self, values: Any) -> np.ndarray:
        """Return the values as a NumPy array."""
        if hasattr(values, "get"):  # CuPy
            return np.asarray(values.get())
        if hasattr(values, "cpu"):  # PyTorch
            return np.asarray(values.cpu().numpy())
        return np.asarray(values)


HOST = Device(np)
"""NumPy on the processor."""


def named_device(name: str) -> Device:
    """Return where ``--device`` says products are computed: ``cpu``, or ``cuda`` by CuPy or PyTorch.

    Raises
    ------
    MissingExtraError
        Neither CuPy nor PyTorch is installed.
    ValueError
        Another name, or PyTorch sees no CUDA device.
    """
    if name == "cpu":
        return HOST
    if name != "cuda":
        raise ValueError(f"--device: expected cpu or cuda, found {name!r}.")
    try:
        return Device(import_module("cupy"))
    except ImportError:
        torch, namespace = import_extra("torch", extra="gpu"), import_extra("array_api_compat.torch", extra="gpu")
        if not torch.cuda.is_available():
            raise ValueError("--device cuda: PyTorch is installed but sees no CUDA device; use --device cpu.") from None
        return Device(namespace, torch.device("cuda"))
