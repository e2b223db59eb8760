"""Arrays of short strings without a fixed width: alleles, variant ids."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

__all__ = ["STRING", "text_array"]

STRING = np.dtypes.StringDType()
"""NumPy's variable-width string type: 16 bytes an entry, however long the longest indel is."""


def text_array(values: Iterable[object]) -> Shaped[np.ndarray, " rows"]:
    """Return `values` as a variable-width string array.

    Examples
    --------
    >>> text_array(["A", "TTAGGG"]).tolist()
    ['A', 'TTAGGG']
    """
    if isinstance(values, np.ndarray):
        return values.astype(STRING)
    return np.array([str(value) for value in values], dtype=STRING)
