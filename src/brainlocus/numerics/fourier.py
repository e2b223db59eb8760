"""Real Fourier transforms of zero-padded images, on the processor or in an array-API namespace.

`scipy.fft` transforms float32 without going through float64 and uses several threads; another namespace (PyTorch, CuPy)
uses its own ``fft``. Spectra are half spectra: the last axis holds the frequencies from 0 to Nyquist.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.fft
from jaxtyping import Float

__all__ = ["FourierBox", "fast_length"]


def fast_length(n: int) -> int:
    """Return the smallest even length from `n` up that transforms fast: factors 2, 3 and 5.

    Even, because half spectra of odd lengths cost as much as the next even one.

    Examples
    --------
    >>> fast_length(97), fast_length(100)
    (100, 100)
    """
    length = scipy.fft.next_fast_len(n, real=True)
    while length % 2:
        length = scipy.fft.next_fast_len(length + 1, real=True)
    return int(length)


@dataclass(frozen=True, slots=True, eq=False)
class FourierBox:
    """A padded box around an image, with its transforms.

    The image lies at the box's start; the padding follows it and is shared by both ends, since the box is periodic.
    """

    shape: tuple[int, int, int]
    """The image."""
    padded: tuple[int, int, int]
    """The box."""
    voxel_size_mm: tuple[float, float, float]
    workers: int = 1
    """Threads of a transform; results do not depend on them."""
    namespace: Any = None
    """Array-API namespace; None: NumPy arrays through `scipy.fft`."""

    @classmethod
    def around(
        cls,
        shape: Sequence[int],
        voxel_size_mm: Sequence[float],
        padding_mm: float = 0.0,
        *,
        workers: int = 1,
        namespace: Any = None,
    ) -> "FourierBox":
        """Return a box that leaves at least `padding_mm` between the image and its periodic copies."""
        padded = [fast_length(n + int(np.ceil(padding_mm / h))) for n, h in zip(shape, voxel_size_mm, strict=True)]
        x, y, z = (int(n) for n in shape)
        a, b, c = padded
        u, v, w = (float(h) for h in voxel_size_mm)
        return cls((x, y, z), (a, b, c), (u, v, w), workers, namespace)

    def forward(self, image: Any) -> Any:
        """Return the half spectrum of an image of `shape` or `padded`, zeros around it; single stays single."""
        if self.namespace is None:
            return scipy.fft.rfftn(image, s=self.padded, workers=self.workers)
        return self.namespace.fft.rfftn(self.pad(image))

    def backward(self, spectrum: Any) -> Any:
        """Return the image of `shape` of a half spectrum."""
        return self.crop(self.backward_padded(spectrum))

    def backward_padded(self, spectrum: Any) -> Any:
        """Return the whole box of a half spectrum."""
        if self.namespace is None:
            return scipy.fft.irfftn(spectrum, s=self.padded, workers=self.workers, overwrite_x=False)
        return self.namespace.fft.irfftn(spectrum, s=self.padded, axes=(0, 1, 2))

    def pad(self, image: Any) -> Any:
        """Return an image with zeros to the size of the box."""
        if tuple(image.shape) == self.padded:
            return image
        xp = self.namespace or np
        box = xp.zeros(self.padded, dtype=image.dtype)
        x, y, z = self.shape
        box[:x, :y, :z] = image
        return box

    def crop(self, box: Any) -> Any:
        """Return the image's part of a box."""
        x, y, z = self.shape
        return box[:x, :y, :z]

    def frequencies(self) -> tuple[Float[np.ndarray, "x 1 1"], Float[np.ndarray, "1 y 1"], Float[np.ndarray, "1 1 z"]]:
        """Return the frequencies of the half spectrum along each axis in cycles per mm, ready to broadcast."""
        a, b, c = self.padded
        u, v, w = self.voxel_size_mm
        return (
            np.fft.fftfreq(a, d=u).reshape(-1, 1, 1),
            np.fft.fftfreq(b, d=v).reshape(1, -1, 1),
            np.fft.rfftfreq(c, d=w).reshape(1, 1, -1),
        )

    def gradient_energy(self) -> Float[np.ndarray, "x y z"]:
        """Return E^2 = sum_a (2 - 2 cos 2 pi n_a / N_a) / h_a^2, minus the symbol of the 7-point Laplacian, 1/mm^2."""
        total = np.zeros((1, 1, 1))
        for frequency, size in zip(self.frequencies(), self.voxel_size_mm, strict=True):
            total = total + (2.0 - 2.0 * np.cos(2 * np.pi * frequency * size)) / size**2
        return np.asarray(total)

    def spectrum_shape(self) -> tuple[int, int, int]:
        """Shape of a half spectrum."""
        a, b, c = self.padded
        return a, b, c // 2 + 1

    def spectrum_bytes(self) -> int:
        """Bytes of one half spectrum in single precision."""
        a, b, c = self.spectrum_shape()
        return 8 * a * b * c
