r"""One pass of the multiplicative update over the voxels, and what it sums.

With ``Q = X'W`` and ``A = Q'Q`` known before the pass, the update ``W <- max(W * X Q / (W A), floor)`` needs a voxel's
own row alone, so blocks of voxels are updated in place. The same visit adds the block's share of the next ``Q`` and of
``W'W``, so X is read once an iteration. The division of W by its spectral norm is a scalar: it is kept beside W
(``W = scale * weights``) and multiplied into the next pass.

References
----------
Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734, eq. 24; Sotiras et al. (2015), NeuroImage 108:1.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, no_type_check

import numpy as np
from jaxtyping import Float, Float64
from numba import njit

from brainlocus.images.atlas.blocks import voxel_blocks
from brainlocus.numerics.devices import Device
from brainlocus.numerics.memory_maps import give_back_pages

__all__ = ["FLOOR", "Blocks", "Sums", "exact_sums", "first_pass", "gram_matrix", "project", "update_pass"]

FLOOR = 1e-16
"""Smallest positive entry: multiplicative updates cannot leave exact zero, and denormal numbers are slow."""
TINY = 1e-30
"""Added to denominators; far above the smallest normal float32."""
UPDATE_BYTES = 1 << 20
"""Blocks of the update stay in the second-level cache, where both products of a visit find them."""


@dataclass(frozen=True, slots=True)
class Blocks:
    """Images as blocks of voxels on a device."""

    images: Float[np.ndarray, "voxels samples"]
    device: Device
    signed: bool = False
    """The images have negative entries (they are compressed), so that a product with them may be negative too."""
    resident: tuple[Any, ...] = ()
    """All blocks, where they fit on the device; else each is put there when it is visited."""

    @classmethod
    def of(
        cls, images: Float[np.ndarray, "voxels samples"], device: Device, *, signed: bool, resident: bool
    ) -> "Blocks":
        """Return the blocks, on the device already where they are to be `resident`."""
        plain = cls(images, device, signed)
        if not resident or device.is_host:
            return plain
        return cls(images, device, signed, tuple(device.put(images[rows]) for rows in plain.rows()))

    def rows(self) -> list[slice]:
        """Return the rows of every block."""
        # An accelerator wants large products, a processor those that stay in its cache.
        return voxel_blocks(*self.images.shape, block_bytes=UPDATE_BYTES if self.device.is_host else None)

    def visits(self) -> Iterator[tuple[slice, Any]]:
        """Yield the rows of every block and the block on the device; it is valid until the next is asked for."""
        if self.resident:
            yield from zip(self.rows(), self.resident, strict=True)
        else:
            for rows in self.rows():
                yield rows, self.device.put(self.images[rows])
                give_back_pages(self.images)


@dataclass(frozen=True, slots=True, eq=False)
class Sums:
    """What a pass leaves behind about the unscaled weights R, in float64."""

    q: Float64[np.ndarray, "samples components"]
    """``X'R``."""
    gram: Float64[np.ndarray, "components components"]
    """``R'R``."""
    squares: float
    """``||R||_F^2``, summed entry by entry (the trace of `gram` has float32 products in it)."""
    inner: float = 0.0
    """``<R, W before the pass>``."""


def update_pass(
    blocks: Blocks,
    weights: Any,
    q: Float64[np.ndarray, "samples components"],
    *,
    scale: float,
    exponent: float = 1.0,
    keep_unseen: bool = False,
) -> Sums:
    """Update ``weights`` (on the device) in place from ``W = scale * weights`` and return the sums of the new ones.

    Parameters
    ----------
    q
        ``X'W``, scaled.
    exponent
        Power of the ratio: 1, or less to damp a noisy update.
    keep_unseen
        Leave voxels that are zero in all these images as they are, instead of at the floor: the images are a batch,
        and others have something there. The sums of a batch are of no use and not taken: they are 0.
    """
    device, xp = blocks.device, blocks.device.xp
    dtype = weights.dtype
    q_device, a_device = _put(device, q, dtype), _put(device, q.T @ q, dtype)
    # W Q'Q from the left costs less where a batch has few images for the number of components.
    few = 2 * q.shape[0] < q.shape[1]
    sums = _Running(device, q.shape)
    for rows, x in blocks.visits():
        old = weights[rows, ...]
        numerator, denominator = (
            xp.matmul(x, q_device),
            (xp.matmul(xp.matmul(old, q_device.T), q_device) if few else xp.matmul(old, a_device)),
        )
        if device.is_host:
            inner, squares = _multiply_host(old, numerator, denominator, scale, exponent, keep_unseen)
            new = old
        else:
            new, inner, squares = _multiply(xp, old, numerator, denominator, scale, exponent, keep_unseen)
            weights[rows, ...] = new
        if not keep_unseen:
            sums.add(x, new, inner, squares)
    return sums.done()


def project(blocks: Blocks, weights: Any, *, exact: bool = False) -> Float64[np.ndarray, "samples components"]:
    """Return ``X'R``, with products in float64 where it is to be `exact`."""
    device, xp = blocks.device, blocks.device.xp
    q: Any = 0.0
    for rows, x in blocks.visits():
        block = weights[rows, ...]
        if exact:
            x, block = xp.astype(x, xp.float64), xp.astype(block, xp.float64)
        q = q + xp.astype(xp.matmul(x.T, block), xp.float64)
    return device.get(q)


def gram_matrix(device: Device, weights: Any) -> Float64[np.ndarray, "components components"]:
    """Return ``R'R`` from float64 products."""
    xp = device.xp
    gram: Any = 0.0
    for rows in voxel_blocks(*weights.shape):
        block = xp.astype(weights[rows, ...], xp.float64)
        gram = gram + xp.matmul(block.T, block)
    return device.get(gram)


def first_pass(blocks: Blocks, weights: Any) -> Sums:
    """Return the sums of given weights."""
    device, xp = blocks.device, blocks.device.xp
    sums = _Running(device, (blocks.images.shape[1], weights.shape[1]))
    for rows, x in blocks.visits():
        block = weights[rows, ...]
        sums.add(x, block, 0.0, xp.sum(xp.astype(block, xp.float64) ** 2))
    return sums.done()


def exact_sums(blocks: Blocks, weights: Any) -> Sums:
    """Return the sums with every product in float64, for losses that are reported or decide."""
    device, xp = blocks.device, blocks.device.xp
    sums = _Running(device, (blocks.images.shape[1], weights.shape[1]))
    for rows, narrow in blocks.visits():
        block = xp.astype(weights[rows, ...], xp.float64)
        x = xp.astype(narrow, xp.float64)
        sums.add(x, block, 0.0, xp.sum(block * block))
    return sums.done()


class _Running:
    """Sums of blocks: products in the precision of the images, added up in float64, on the device."""

    def __init__(self, device: Device, shape: tuple[int, int]) -> None:
        self.device = device
        zeros = device.xp.zeros
        where = {} if device.is_host else {"device": device.device}
        self.q = zeros(shape, dtype=device.xp.float64, **where)
        self.gram = zeros((shape[1], shape[1]), dtype=device.xp.float64, **where)
        self.inner: Any = 0.0
        self.squares: Any = 0.0

    def add(self, x: Any, new: Any, inner: Any, squares: Any) -> None:
        xp = self.device.xp
        self.q += xp.astype(xp.matmul(x.T, new), xp.float64)
        self.gram += xp.astype(xp.matmul(new.T, new), xp.float64)
        self.inner = self.inner + inner
        self.squares = self.squares + squares

    def done(self) -> Sums:
        get = self.device.get
        return Sums(get(self.q), get(self.gram), float(self.squares), float(self.inner))


def _put(device: Device, values: Float64[np.ndarray, "..."], dtype: Any) -> Any:
    return device.xp.astype(device.put(values), dtype)


def _multiply(
    xp: Any, old: Any, numerator: Any, denominator: Any, scale: float, exponent: float, keep_unseen: bool
) -> tuple[Any, Any, Any]:
    """Return the updated block, its product with the old one, and its sum of squares."""
    given = old * scale
    zero = xp.zeros_like(given)
    ratio = xp.maximum(numerator, zero) / (denominator * scale + TINY)
    moved = given * (ratio if exponent == 1.0 else ratio**exponent)
    new = xp.where(given > 0, xp.maximum(moved, zero + FLOOR), zero)
    if keep_unseen:
        new = xp.where(numerator > 0, new, given)
    wide = xp.astype(new, xp.float64)
    return new, xp.sum(xp.astype(given, xp.float64) * wide), xp.sum(wide * wide)


@njit(cache=True, fastmath={"reassoc", "contract"}, error_model="numpy")
@no_type_check
def _multiply_host(
    weights: np.ndarray,
    numerator: np.ndarray,
    denominator: np.ndarray,
    scale: float,
    exponent: float,
    keep_unseen: bool,
) -> tuple[float, float]:
    """Update a block in place; return its product with the old one and its sum of squares."""
    inner = 0.0
    squares = 0.0
    kind = weights.dtype.type
    factor, floor, tiny, zero = kind(scale), kind(FLOOR), kind(TINY), kind(0.0)
    power = kind(exponent)
    flat_w, flat_n, flat_d = weights.ravel(), numerator.ravel(), denominator.ravel()
    for i in range(flat_w.size):
        given = flat_w[i] * factor
        ratio = max(flat_n[i], zero) / (flat_d[i] * factor + tiny)
        if power == kind(0.5):
            ratio = np.sqrt(ratio)
        elif power != kind(1.0):
            ratio = ratio**power
        new = max(given * ratio, floor)
        if given <= zero:
            new = zero
        elif keep_unseen and flat_n[i] <= zero:
            new = given
        flat_w[i] = new
        inner += np.float64(given) * np.float64(new)
        squares += np.float64(new) * np.float64(new)
    return inner, squares
