"""The matrix products of the linear scan, on the processor or on an accelerator.

A block needs ``counts @ [Y~ | Q]`` and, for groups of traits with absent people, the same over these people alone.
On an accelerator packed calls travel as they are (two bits each) and are decoded there, so that 1/16 of the bytes of
float32 cross the bus; statistics, p-values and the float64 refinement of hits stay on the processor. Any array-API
namespace serves.

References
----------
Python array API standard, 2023.12. methods/gwas.md 2.4 and 2.6: float32 products move t by less than 2e-4.
"""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int

from brainlocus.genetics.gwas import _kernels
from brainlocus.genetics.gwas.linear import LinearDesign
from brainlocus.genetics.gwas.method import CallBlock
from brainlocus.numerics.devices import named_device

__all__ = ["DeviceProducts", "HostProducts", "Products", "device_products"]


@runtime_checkable
class Products(Protocol):
    """Where the products of a design are computed."""

    @property
    def design(self) -> LinearDesign:
        """The traits and covariates multiplied with."""

    def of_block(self, block: CallBlock) -> Float[np.ndarray, "variants columns"]:
        """Return ``counts @ design.right`` with missing calls at their mean."""

    def of_people(
        self, block: CallBlock, people: Int[np.ndarray, " listed"], basis: slice | None
    ) -> tuple[Float[np.ndarray, "variants 3"], Float[np.ndarray, "variants basis_columns"] | None]:
        """Return sums over some people: total, squares, missing calls; and the product with their `basis` columns."""


@dataclass(frozen=True, slots=True, eq=False)
class HostProducts:
    """On the processor, in the precision of the block."""

    design: LinearDesign

    def of_block(self, block: CallBlock) -> Float[np.ndarray, "variants columns"]:
        """Return ``counts @ design.right``."""
        double = block.counts.dtype == np.float64
        return np.asarray(np.matmul(block.counts, self.design.right if double else self.design.single))

    def of_people(
        self, block: CallBlock, people: Int[np.ndarray, " listed"], basis: slice | None
    ) -> tuple[Float[np.ndarray, "variants 3"], Float[np.ndarray, "variants basis_columns"] | None]:
        """Return sums over some people, and the product with their `basis` columns."""
        counts = block.counts
        listed = np.empty((counts.shape[0], 0 if basis is None else people.size), dtype=counts.dtype)
        inside = np.zeros(counts.shape[1], dtype=bool)
        inside[people] = True
        sums = _kernels.sum_listed(counts, block.missing_start, block.missing_people, people, inside, listed)
        if basis is None:
            return sums, None
        right = self.design.right if counts.dtype == np.float64 else self.design.single
        return sums, listed @ right[people, basis]


class DeviceProducts:
    """On an accelerator, in float32.

    Parameters
    ----------
    namespace
        An array-API namespace: CuPy, PyTorch through array-api-compat, NumPy.
    device
        What the namespace calls the device; None: its default.
    """

    def __init__(self, design: LinearDesign, namespace: Any, device: Any = None) -> None:
        self.design, self.xp, self.device = design, namespace, device
        self._right = self._put(design.single)
        self._decoded: tuple[CallBlock | None, Any] = (None, None)

    def of_block(self, block: CallBlock) -> Float[np.ndarray, "variants columns"]:
        """Return ``counts @ design.right``."""
        return np.asarray(self._get(self.xp.matmul(self._counts(block), self._right)))

    def of_people(
        self, block: CallBlock, people: Int[np.ndarray, " listed"], basis: slice | None
    ) -> tuple[Float[np.ndarray, "variants 3"], Float[np.ndarray, "variants basis_columns"] | None]:
        """Return sums over some people, and the product with their `basis` columns."""
        xp = self.xp
        at = self._put(people)
        listed = xp.take(self._counts(block), at, axis=1)
        inside = np.zeros(self.design.n_samples, dtype=bool)
        inside[people] = True
        row = np.repeat(np.arange(block.n_called.size), np.diff(block.missing_start))
        holes = np.bincount(row[inside[block.missing_people]], minlength=block.n_called.size).astype(np.float64)
        fill = block.mean.astype(np.float32).astype(np.float64)
        wide = xp.astype(listed, xp.float64)
        total = self._get(xp.sum(wide, axis=1)) - holes * fill
        squares = self._get(xp.sum(wide * wide, axis=1)) - holes * fill**2
        sums = np.column_stack([total, squares, holes])
        if basis is None:
            return sums, None
        return sums, self._get(xp.matmul(listed, xp.take(self._right[:, basis], at, axis=0)))

    def _counts(self, block: CallBlock) -> Any:
        """Return the block's counts on the device, decoded there when they came packed."""
        if self._decoded[0] is not block:
            self._decoded = (block, self._put(block.counts) if block.packed is None else self._decode(block))
        return self._decoded[1]

    def _decode(self, block: CallBlock) -> Any:
        xp, packed = self.xp, block.packed
        assert packed is not None  # noqa: S101 - the caller looked
        codes = xp.expand_dims(self._put(packed.codes), axis=2)
        shifts = self._put(np.array([0, 2, 4, 6], dtype=np.uint8))
        calls = xp.bitwise_and(xp.bitwise_right_shift(codes, shifts), self._put(np.array([3], dtype=np.uint8)))
        calls = xp.reshape(calls, (packed.codes.shape[0], 4 * packed.codes.shape[1]))[:, : packed.n_samples]
        flipped = np.asarray(block.sign < 0)[:, None]
        both, neither = self._column(np.where(flipped, 0.0, 2.0)), self._column(np.where(flipped, 2.0, 0.0))
        one, fill = self._column(np.ones_like(flipped, dtype=np.float32)), self._column(block.mean[:, None])
        rarer = xp.where(calls == 2, one, xp.where(calls == 1, fill, neither))
        return xp.where(calls == 0, both, rarer)

    def _column(self, values: Any) -> Any:
        return self._put(np.asarray(values, dtype=np.float32))

    def _put(self, values: Any) -> Any:
        return self.xp.asarray(np.ascontiguousarray(values), device=self.device)

    def _get(self, values: Any) -> Any:
        if hasattr(values, "get"):  # CuPy
            return values.get()
        if hasattr(values, "cpu"):  # PyTorch
            return values.cpu().numpy()
        return np.asarray(values)


def device_products(design: LinearDesign, device: str) -> Products:
    """Return where ``--device`` says the products are computed: ``cpu``, or ``cuda`` by CuPy or PyTorch.

    Raises
    ------
    MissingExtraError
        Neither CuPy nor PyTorch is installed.
    ValueError
        Another device, or PyTorch sees no CUDA device.
    """
    chosen = named_device(device)
    return HostProducts(design) if chosen.is_host else DeviceProducts(design, chosen.xp, chosen.device)
