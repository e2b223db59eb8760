"""Associations as arrays, and their sums by group."""

from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Float, Int, Shaped

__all__ = ["GeneRows", "GroupSums"]


@dataclass(frozen=True, slots=True, eq=False)
class GeneRows:
    """Associations as arrays, all of equal length."""

    gid: Int[np.ndarray, " rows"]
    pid: Int[np.ndarray, " rows"]
    tid: Int[np.ndarray, " rows"]
    z: Float[np.ndarray, " rows"]
    effect: Float[np.ndarray, " rows"]
    strength: Float[np.ndarray, " rows"]
    """-log10 p."""
    log_q: Float[np.ndarray, " rows"]
    """-log10 q of the filter's scope; NaN where it is unknown."""

    @classmethod
    def empty(cls) -> "GeneRows":
        """Return no rows."""
        return cls(*(np.zeros(0, dtype=np.int64) for _ in range(3)), *(np.zeros(0) for _ in range(4)))

    def __len__(self) -> int:
        return int(self.gid.size)

    def take(self, rows: Shaped[np.ndarray, " kept"]) -> "GeneRows":
        """Return some rows."""
        return GeneRows(*(getattr(self, name)[rows] for name in GeneRows.__slots__))


@dataclass(slots=True)
class GroupSums:
    """What is summed up over the rows of every group."""

    n: Int[np.ndarray, " groups"]
    positive: Int[np.ndarray, " groups"]
    total: Float[np.ndarray, " groups"]
    total_absolute: Float[np.ndarray, " groups"]
    best: Float[np.ndarray, " groups"]
    """z of the strongest row."""
    best_strength: Float[np.ndarray, " groups"]
    best_gid: Int[np.ndarray, " groups"]
    best_pid: Int[np.ndarray, " groups"]
    best_tid: Int[np.ndarray, " groups"]
    seen: dict[str, list[Int[np.ndarray, " pairs"]]] = field(default_factory=dict)
    """Distinct pairs of group and gene, phenotype or tissue, in parts."""

    @classmethod
    def of(cls, n: int) -> "GroupSums":
        """Return the sums of `n` groups without rows."""
        n_rows, n_positive = (np.zeros(n, dtype=np.int64) for _ in range(2))
        total, absolute, best = (np.zeros(n) for _ in range(3))
        gid, pid, tid = (np.full(n, -1, dtype=np.int64) for _ in range(3))
        return cls(n_rows, n_positive, total, absolute, best, np.full(n, -np.inf), gid, pid, tid)

    def add(self, rows: GeneRows, group: Int[np.ndarray, " rows"]) -> None:
        """Add rows that belong to these groups."""
        np.add.at(self.n, group, 1)
        np.add.at(self.positive, group, rows.z > 0)
        np.add.at(self.total, group, rows.z)
        np.add.at(self.total_absolute, group, np.abs(rows.z))
        order = np.lexsort((rows.strength, group))
        last = order[np.r_[group[order][1:] != group[order][:-1], True]] if order.size else order
        better = last[rows.strength[last] > self.best_strength[group[last]]]
        at = group[better]
        self.best[at], self.best_strength[at] = rows.z[better], rows.strength[better]
        self.best_gid[at], self.best_pid[at], self.best_tid[at] = rows.gid[better], rows.pid[better], rows.tid[better]
        for name in ("gid", "pid", "tid"):
            pairs = np.unique((group.astype(np.int64) << 32) | getattr(rows, name))
            held = [*self.seen.get(name, []), pairs]
            # A list of ever more parts is merged now and then, so that it does not outgrow its distinct pairs.
            self.seen[name] = [np.unique(np.concatenate(held))] if len(held) > 16 else held

    def distinct(self, name: str) -> Int[np.ndarray, " groups"]:
        """Return how many genes (``gid``), phenotypes (``pid``) or tissues (``tid``) every group has."""
        parts = self.seen.get(name, [])
        pairs = np.unique(np.concatenate(parts)) if parts else np.zeros(0, dtype=np.int64)
        return np.bincount(pairs >> 32, minlength=self.n.size)
