"""The genetic relationship matrix and the people it relates."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from brainlocus.core.errors import AlignmentError
from brainlocus.core.samples import SampleIndex

__all__ = ["Grm"]


@dataclass(frozen=True, slots=True, eq=False)
class Grm:
    """Genetic relationship matrix.

    Raises
    ------
    AlignmentError
        The matrix is not square with one row per sample.
    """

    samples: SampleIndex
    matrix: Float[np.ndarray, "samples samples"]
    """Mean over variants of products of standardised dosages; about 1 on the diagonal. Symmetric."""
    n_variants: Float[np.ndarray, "samples samples"] | float
    """Variants behind each pair (one number when the same for all)."""

    def __post_init__(self) -> None:
        expected = (len(self.samples), len(self.samples))
        if self.matrix.shape != expected:
            raise AlignmentError(f"The GRM is {self.matrix.shape}, expected {expected} for its samples.")

    def take(self, samples: SampleIndex) -> "Grm":
        """Return the GRM of some of its people, in their order.

        Raises
        ------
        AlignmentError
            A sample is not in the GRM.
        """
        indices = self.samples.indices_of(samples)
        if (indices < 0).any():
            absent = ", ".join(repr(str(i)) for i in samples.ids[indices < 0][:5])
            raise AlignmentError(f"{int((indices < 0).sum())} participants are not in the GRM: {absent}.")
        pairs = np.ix_(indices, indices)
        counts = self.n_variants if isinstance(self.n_variants, float) else self.n_variants[pairs]
        return Grm(samples, self.matrix[pairs], counts)
