"""Ordered unique participant ids: the only way to align two things."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

from brainlocus.core.errors import AlignmentError, SchemaError

__all__ = ["SampleIndex", "intersect", "shared_samples"]


@dataclass(frozen=True, slots=True, eq=False)
class SampleIndex:
    """Ordered, unique participant ids.

    Ids are strings, compared exactly: ``"007"`` and ``"7"`` are two people.

    Raises
    ------
    SchemaError
        An id occurs twice or is empty.

    Examples
    --------
    >>> people = SampleIndex.of(["a", "b", "c"])
    >>> len(people), "b" in people
    (3, True)
    >>> people.indices_of(["c", "x"])
    array([ 2, -1])
    """

    ids: Shaped[np.ndarray, " samples"]
    """Unicode array (``dtype.kind == "U"``)."""

    def __post_init__(self) -> None:
        if self.ids.dtype.kind != "U" or self.ids.ndim != 1:
            raise TypeError("SampleIndex.ids must be a one-dimensional unicode array; use SampleIndex.of(...)")
        if (self.ids == "").any():
            raise SchemaError("A participant id is empty; every row needs an id.")
        unique, counts = np.unique(self.ids, return_counts=True)
        if unique.size != self.ids.size:
            twice = unique[counts > 1]
            shown = ", ".join(repr(str(i)) for i in twice[:5])
            raise SchemaError(
                f"Participant ids must be unique; {twice.size} occur more than once: {shown}. "
                "Keep one row per participant."
            )

    @classmethod
    def of(cls, ids: Iterable[object]) -> "SampleIndex":
        """Return the index of `ids` in their order, each converted to a string."""
        return cls(np.asarray([str(i) for i in ids], dtype=np.str_))

    def __len__(self) -> int:
        return int(self.ids.size)

    def __contains__(self, participant_id: object) -> bool:
        return bool((self.ids == str(participant_id)).any())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SampleIndex) and np.array_equal(self.ids, other.ids)

    def __hash__(self) -> int:
        return hash(self.ids.tobytes())

    def take(self, indices: Shaped[np.ndarray, " kept"]) -> "SampleIndex":
        """Return the ids at integer `indices` (or where a boolean mask is true)."""
        return SampleIndex(self.ids[indices])

    def indices_of(self, ids: "SampleIndex | Iterable[object]") -> Int[np.ndarray, " wanted"]:
        """Return the position of every id, -1 where it is absent."""
        wanted = ids.ids if isinstance(ids, SampleIndex) else np.asarray([str(i) for i in ids], dtype=np.str_)
        if not self.ids.size:
            return np.full(wanted.size, -1, dtype=np.int64)
        order = np.argsort(self.ids, kind="stable")
        ranks = np.searchsorted(self.ids, wanted, sorter=order)
        found = order[np.minimum(ranks, self.ids.size - 1)]
        return np.where(self.ids[found] == wanted, found, -1).astype(np.int64)


def intersect(*indexes: SampleIndex) -> SampleIndex:
    """Return the ids present in every index, in the order of the first."""
    first, *others = indexes
    keep = np.ones(len(first), dtype=bool)
    for other in others:
        keep &= other.indices_of(first) >= 0
    return first.take(keep)


def shared_samples(*indexes: SampleIndex, names: tuple[str, ...]) -> SampleIndex:
    """Return the shared ids in the order of the first index, after checking that there are any.

    Parameters
    ----------
    names
        What each index is ("genotypes", "traits"), for the message.

    Raises
    ------
    AlignmentError
        No id is shared.
    """
    shared = intersect(*indexes)
    if not len(shared):
        examples = "; ".join(
            f"{name} has {len(index)} ({', '.join(repr(str(i)) for i in index.ids[:3])}, ...)"
            if len(index)
            else f"{name} is empty"
            for name, index in zip(names, indexes, strict=True)
        )
        raise AlignmentError(
            f"No participant id is shared: {examples}. Ids are compared as exact strings; "
            "check leading zeros and prefixes."
        )
    return shared
