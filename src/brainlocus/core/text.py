"""Arrays of short strings without a fixed width (alleles, variant ids), and names as file formats quote them."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Shaped

__all__ = ["STRING", "newick_name", "text_array"]

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


def newick_name(name: str) -> str:
    """Return a name for a Newick tree, quoted where it holds what means something there (an underscore is a space).

    Examples
    --------
    >>> newick_name("thalamus"), newick_name("C32_1")
    ('thalamus', "'C32_1'")
    """
    if any(c in " ()[]':;,_" or c.isspace() for c in name):
        return "'" + name.replace("'", "''") + "'"
    return name
