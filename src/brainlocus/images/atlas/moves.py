"""Merge-and-split moves out of the local optima of k-means-like fits.

EM, like k-means, stops where two true components share a prototype while another is cut in two: no voxel gains by
changing sides. A move that merges the two halves and splits the pair escapes. Costs and gains are in units of the loss,
from the rows of the components concerned alone, so proposing every move costs a few passes over the data. Moves that
share no component can be made together: with hundreds of components tens of them are.

References
----------
Ueda, Nakano, Ghahramani & Hinton (2000), Neural Comput. 12:2109 (split and merge EM).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Int

__all__ = ["Move", "apply_moves", "propose_moves"]

NEIGHBOURS = 3
"""Merges are tried with the components of the most similar prototypes."""
SPLIT_ROUNDS = 6
"""Rounds of the two-component fit that splits one component."""


_Merge = tuple[float, int, int, Float64[np.ndarray, " samples"]]
"""Cost, the two components, and the prototype of both."""
_Split = tuple[float, Float64[np.ndarray, "2 samples"], int]
"""Gain, the prototypes of the halves, and the component."""


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Merge `first` and `second`, and split `third`, which takes the freed place."""

    gain: float
    """Expected fall of the loss, before the other voxels settle."""
    first: int
    second: int
    third: int
    merged: Float64[np.ndarray, " samples"]
    """Prototype of the merged component."""
    halves: Float64[np.ndarray, "2 samples"]
    """Prototypes of the two halves."""

    @property
    def components(self) -> set[int]:
        """What the move changes."""
        return {self.first, self.second, self.third}


def apply_moves(
    prototypes: Float64[np.ndarray, "components samples"], moves: list[Move]
) -> Float64[np.ndarray, "components samples"]:
    """Return the prototypes after moves that share no component."""
    new = prototypes.copy()
    for move in moves:
        new[move.first] = move.merged
        new[move.second], new[move.third] = move.halves
    return new


def propose_moves(
    sample: Float32[np.ndarray, "voxels samples"],
    labels: Int[np.ndarray, " voxels"],
    prototypes: Float64[np.ndarray, "components samples"],
    *,
    most: int = 3,
) -> list[list[Move]]:
    """Return what to try, in this order: all moves that go together, the better half of them, ..., single moves.

    Parameters
    ----------
    labels
        Component of each voxel, from 0.
    most
        How many single moves to return at most, each with another split or another merge.
    """
    n_components = prototypes.shape[0]
    if n_components < 3:
        return []
    members = [np.flatnonzero(labels == k) for k in range(n_components)]
    merges = sorted(_merges(sample, members, prototypes), key=lambda m: m[0])
    splits = [(*_split(sample[rows], prototypes[k]), k) for k, rows in enumerate(members) if rows.size > 1]
    splits.sort(key=lambda s: -s[0])
    trials = []
    together = _together(merges, splits)
    while len(together) > 1:
        trials.append(together)
        together = together[: len(together) // 2]
    moves = []
    for gain, halves, third in splits[: 2 * most]:
        for cost, first, second, merged in merges[: 4 * most]:
            if third not in (first, second) and gain > cost:
                moves.append(Move(gain - cost, first, second, third, merged, halves))
                break
    return [*trials, *([move] for move in sorted(moves, key=lambda m: -m.gain)[:most])]


def _together(merges: list[_Merge], splits: list[_Split]) -> list[Move]:
    """Return moves that share no component, the largest gain first: each split with the cheapest merge left."""
    used: set[int] = set()
    moves = []
    for gain, halves, third in splits:
        if third in used:
            continue
        for cost, first, second, merged in merges:
            if gain <= cost:
                break
            if used.isdisjoint((first, second)) and third not in (first, second):
                moves.append(Move(gain - cost, first, second, third, merged, halves))
                used |= moves[-1].components
                break
    return sorted(moves, key=lambda m: -m.gain)


def _merges(
    sample: Float32[np.ndarray, "voxels samples"],
    members: list[Int[np.ndarray, " _rows"]],
    prototypes: Float64[np.ndarray, "components samples"],
) -> list[_Merge]:
    """Return the merges of similar pairs.

    The merged prototype is the best one in the span of the two (Rayleigh-Ritz), so the cost is an upper bound.
    """
    similarity = prototypes @ prototypes.T
    np.fill_diagonal(similarity, -np.inf)
    found = []
    for k, row in enumerate(similarity):
        for other in np.argsort(-row)[:NEIGHBOURS]:
            second = int(other)
            if not (k < second or k not in np.argsort(-similarity[second])[:NEIGHBOURS]):
                continue
            basis, _ = np.linalg.qr(np.stack([prototypes[k], prototypes[second]], axis=1))
            rows = np.concatenate([members[k], members[second]])
            projected = (sample[rows] @ basis.astype(np.float32)).astype(np.float64)
            values, vectors = np.linalg.eigh(projected.T @ projected)
            apart = _energy(sample[members[k]], prototypes[k]) + _energy(sample[members[second]], prototypes[second])
            found.append((apart - float(values[-1]), k, second, _positive(basis @ vectors[:, -1])))
    return found


def _energy(rows: Float32[np.ndarray, "rows samples"], prototype: Float64[np.ndarray, " samples"]) -> float:
    return float(((rows @ prototype.astype(np.float32)).astype(np.float64) ** 2).sum())


def _positive(vector: Float64[np.ndarray, " samples"]) -> Float64[np.ndarray, " samples"]:
    return vector if vector.sum() >= 0 else -vector


def _split(
    rows: Float32[np.ndarray, "rows samples"], prototype: Float64[np.ndarray, " samples"]
) -> tuple[float, Float64[np.ndarray, "2 samples"]]:
    """Return the fall of the loss and the two prototypes of the best cut found.

    Starts from the two sides of the rows' strongest direction besides the prototype.
    """
    along = rows @ prototype.astype(np.float32)
    residual = rows - np.outer(along, prototype).astype(np.float32)
    direction = residual[int((residual**2).sum(axis=1).argmax())].astype(np.float32)
    for _ in range(SPLIT_ROUNDS):
        direction = residual.T @ (residual @ direction)
        length = float(np.linalg.norm(direction))
        if length == 0.0:
            return 0.0, np.stack([prototype, prototype])
        direction /= length
    side = residual @ direction > 0
    halves = np.stack([prototype, prototype])
    for _ in range(SPLIT_ROUNDS):
        for half, chosen in enumerate((side, ~side)):
            if chosen.any():
                part = rows[chosen]
                new = (part.T @ (part @ halves[half].astype(np.float32))).astype(np.float64)
                halves[half] = new / np.linalg.norm(new)
        projected = rows @ halves.T.astype(np.float32)
        side = projected[:, 0] >= projected[:, 1]
    energy = float((projected.max(axis=1).astype(np.float64) ** 2).sum())
    return energy - float((along.astype(np.float64) ** 2).sum()), halves
