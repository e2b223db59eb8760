"""X'Y as a matrix or, where that would be larger than X and Y, as a product; with modes taken out one by one."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float64

__all__ = ["CrossProduct"]


@dataclass(slots=True, eq=False)
class CrossProduct:
    """K = X'Y - sum of the rank-one terms taken out."""

    x: Float64[np.ndarray, "people columns_x"]
    y: Float64[np.ndarray, "people columns_y"]
    dense: Float64[np.ndarray, "columns_x columns_y"] | None = None
    lefts: list[Float64[np.ndarray, " columns_x"]] = field(default_factory=list)
    rights: list[Float64[np.ndarray, " columns_y"]] = field(default_factory=list)

    @classmethod
    def of(
        cls, x: Float64[np.ndarray, "people columns_x"], y: Float64[np.ndarray, "people columns_y"]
    ) -> "CrossProduct":
        """Return X'Y, formed when it is no larger than the two tables, or small."""
        small = x.shape[1] * y.shape[1] <= max(x.size + y.size, 1 << 22)
        return cls(x, y, x.T @ y if small else None)

    def fresh(self) -> "CrossProduct":
        """Return the same product with nothing taken out."""
        return CrossProduct(self.x, self.y, self.dense)

    def times(self, v: Float64[np.ndarray, " columns_y"]) -> Float64[np.ndarray, " columns_x"]:
        """Return K v."""
        product = self.x.T @ (self.y @ v) if self.dense is None else self.dense @ v
        for left, right in zip(self.lefts, self.rights, strict=True):
            product = product - left * (right @ v)
        return np.asarray(product)

    def transposed_times(self, u: Float64[np.ndarray, " columns_x"]) -> Float64[np.ndarray, " columns_y"]:
        """Return K'u."""
        product = self.y.T @ (self.x @ u) if self.dense is None else u @ self.dense
        for left, right in zip(self.lefts, self.rights, strict=True):
            product = product - right * (left @ u)
        return np.asarray(product)

    def take_out(self, left: Float64[np.ndarray, " columns_x"], right: Float64[np.ndarray, " columns_y"]) -> None:
        """Subtract left right' from K."""
        self.lefts.append(left)
        self.rights.append(right)

    def start(self) -> Float64[np.ndarray, " columns_y"]:
        """Return the leading right singular vector of K, by Lanczos from a fixed start."""
        n_y = self.y.shape[1]
        if min(self.x.shape[1], n_y) < 3:
            return self._start_dense()
        from scipy.sparse.linalg import LinearOperator, eigsh

        gram = LinearOperator((n_y, n_y), matvec=lambda v: self.transposed_times(self.times(v.ravel())), dtype=float)
        begin = self.transposed_times(np.ones(self.x.shape[1]))
        if not np.abs(begin).max() > 0:
            begin = np.ones(n_y)
        _, vectors = eigsh(gram, k=1, v0=begin, tol=1e-6)
        return _fixed_sign(vectors[:, 0])

    def _start_dense(self) -> Float64[np.ndarray, " columns_y"]:
        whole = np.stack([self.times(row) for row in np.eye(self.y.shape[1])], axis=1)
        return _fixed_sign(np.linalg.svd(whole, full_matrices=False)[2][0])


def _fixed_sign(vector: Float64[np.ndarray, " size"]) -> Float64[np.ndarray, " size"]:
    """Return the vector with its largest entry positive."""
    return np.asarray(vector * np.copysign(1.0, vector[np.abs(vector).argmax()]))
