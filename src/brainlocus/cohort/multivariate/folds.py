"""Folds of people in which those of one family or site stay together."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

__all__ = ["FoldPlan", "Split", "group_folds", "plan_folds"]

FEWEST = 5
"""People a held-out fold needs for a correlation to mean anything."""


@dataclass(frozen=True, slots=True, eq=False)
class Split:
    """Rows to train on and rows held out."""

    train: Int[np.ndarray, " train"]
    test: Int[np.ndarray, " test"]


@dataclass(frozen=True, slots=True, eq=False)
class FoldPlan:
    """Nested folds: each outer training set, and everyone, is split again to choose penalties."""

    outer: tuple[Split, ...]
    inner: tuple[tuple[Split, ...], ...]
    """One set of folds for each outer one."""
    everyone: tuple[Split, ...]
    """Folds of everyone, for the penalties of the final model."""

    @property
    def smallest(self) -> int:
        """People in the smallest training set."""
        splits = [*self.outer, *self.everyone, *(split for some in self.inner for split in some)]
        return min(split.train.size for split in splits)


def plan_folds(
    n: int, groups: Shaped[np.ndarray, " people"] | None, *, folds: int, inner_folds: int, rng: np.random.Generator
) -> FoldPlan:
    """Return nested folds.

    Parameters
    ----------
    groups
        Label of each person's family or site; None: everyone is alone.
    inner_folds
        0: none, for models without a penalty to choose.

    Raises
    ------
    ValueError
        Fewer groups than folds, or fewer than 5 people in a held-out fold.
    """
    labels = np.arange(n) if groups is None else np.unique(groups, return_inverse=True)[1]
    outer = group_folds(labels, folds, rng)
    if not inner_folds:
        return FoldPlan(outer, (), ())
    inner = []
    for split in outer:
        try:
            within = group_folds(labels[split.train], inner_folds, rng)
        except ValueError as error:
            raise ValueError(f"Inner folds, which choose penalties in a training set: {error}") from None
        inner.append(tuple(Split(split.train[s.train], split.train[s.test]) for s in within))
    return FoldPlan(outer, tuple(inner), group_folds(labels, inner_folds, rng))


def group_folds(groups: Shaped[np.ndarray, " people"], count: int, rng: np.random.Generator) -> tuple[Split, ...]:
    """Return folds of about one size, no group in two of them.

    Groups go, largest first and in random order among equals, into the fold with the fewest people.

    Raises
    ------
    ValueError
        Fewer groups than folds, or fewer than 5 people in a held-out fold.

    Examples
    --------
    >>> sites = np.repeat(["a", "b", "c"], 6)
    >>> [sorted(set(sites[s.test].tolist())) for s in group_folds(sites, 3, np.random.default_rng(0))]
    [['c'], ['a'], ['b']]
    """
    _, codes, sizes = np.unique(groups, return_inverse=True, return_counts=True)
    if sizes.size < count:
        raise ValueError(
            f"{count} folds need at least {count} groups of people (families, sites), which are never divided; found "
            f"{sizes.size}. Use fewer folds or smaller groups."
        )
    shuffled = rng.permutation(sizes.size)
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    held = np.zeros(count, dtype=np.int64)
    fold_of = np.empty(sizes.size, dtype=np.int64)
    for group in order:
        emptiest = int(held.argmin())
        fold_of[group] = emptiest
        held[emptiest] += sizes[group]
    if held.min() < FEWEST:
        raise ValueError(
            f"A held-out fold would have {int(held.min())} of {codes.size} people; expected at least {FEWEST}. Use "
            "fewer folds, or more people."
        )
    fold = fold_of[codes]
    return tuple(Split(np.flatnonzero(fold != k), np.flatnonzero(fold == k)) for k in range(count))
