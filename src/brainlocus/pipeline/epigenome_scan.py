"""Streams features through their regressions, and keeps the estimates on disk until those of all features are known.

Data flow::

    blocks of a file --prepare_block--> values to analyse         (range, detection, M values, winsorised)
    values + design --scan_block--> FeatureScan --Spool.append--> estimates on disk, block by block
    Spool.trait --> the estimates of one trait, all features
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float64, Int, Int8, Shaped

from brainlocus.cohort.associate import VoxelwiseDesign
from brainlocus.cohort.associate.epigenome import FeatureScan, Outcome, m_values, scan_features, winsorise
from brainlocus.core import AlignmentError, FormatError, SampleIndex
from brainlocus.io import FeatureMatrix
from brainlocus.pipeline.step import Context

__all__ = [
    "Block",
    "Kind",
    "Preparation",
    "PreparedBlock",
    "Preparer",
    "ScanSource",
    "Spool",
    "TraitEstimates",
    "prepare_block",
    "scan_all",
]

Kind = Literal["beta", "m", "other"]

_SLACK = 1e-6
"""A beta may be outside [0, 1] by so much: what a float32 file has rounded."""


@dataclass(frozen=True, slots=True)
class Preparation:
    """What is done to values before they are analysed."""

    kind: Kind
    keep_betas: bool
    """Analyse betas as they are, not as M values."""
    reach: float
    """Interquartile ranges beyond which values are winsorised; 0 for not at all."""
    detection_limit: float


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Features as they are in the file."""

    features: Shaped[np.ndarray, " features"]
    values: Float64[np.ndarray, "features people"]
    detection_p: Float64[np.ndarray, "features people"] | None


@dataclass(frozen=True, slots=True, eq=False)
class PreparedBlock:
    """Features to be analysed."""

    features: Shaped[np.ndarray, " features"]
    values: Float64[np.ndarray, "features people"]
    n_winsorised: int
    n_undetected: int


@dataclass(frozen=True, slots=True, eq=False)
class ScanSource:
    """Where features come from, and what is done to them."""

    matrix: FeatureMatrix
    samples: SampleIndex
    """People analysed, in the order of the design."""
    size: int
    """Features of a block."""
    preparation: Preparation
    excluded: frozenset[str]
    detection: FeatureMatrix | None

    def blocks(self) -> Iterator[Block]:
        """Yield the features that are not excluded, block by block.

        Raises
        ------
        AlignmentError
            The detection p-values are of other features, or in another order.
        """
        for values, detection in self._pairs():
            block = Block(values[0], values[1], detection)
            if self.excluded:
                kept = np.array([name not in self.excluded for name in values[0].tolist()], dtype=bool)
                if not kept.all():
                    block = Block(values[0][kept], values[1][kept], None if detection is None else detection[kept])
            yield block

    def _pairs(
        self,
    ) -> Iterator[
        tuple[
            tuple[Shaped[np.ndarray, " _features"], Float64[np.ndarray, "_features people"]],
            Float64[np.ndarray, "_features people"] | None,
        ]
    ]:
        blocks = self.matrix.blocks(self.samples, self.size)
        if self.detection is None:
            for block in blocks:
                yield (block.features, block.values), None
            return
        others = self.detection.blocks(self.samples, self.size)
        for block in blocks:
            other = next(others, None)
            if other is None or not np.array_equal(block.features, other.features):
                raise AlignmentError(
                    f"{self.detection.path}: expected detection p-values of the features of {self.matrix.path}, in its "
                    f"order, found {_difference(block.features, other.features if other is not None else None)}. "
                    "Sort one like the other."
                )
            yield (block.features, block.values), other.values
        if (other := next(others, None)) is not None:
            raise AlignmentError(
                f"{self.detection.path}: has more features than {self.matrix.path}, from "
                f"{str(other.features[0])!r} on. Give the table of the same features."
            )


def _difference(wanted: Shaped[np.ndarray, " features"], found: Shaped[np.ndarray, " others"] | None) -> str:
    if found is None:
        return f"none from {str(wanted[0])!r} on"
    for first, second in zip(wanted.tolist(), found.tolist(), strict=False):
        if first != second:
            return f"{second!r} where {first!r} is"
    return f"{found.size} features where {wanted.size} are"


def prepare_block(block: Block, preparation: Preparation, source: str) -> PreparedBlock:
    """Return a block's values as they are analysed.

    Raises
    ------
    FormatError
        A beta outside [0, 1].
    """
    values, undetected = block.values, 0
    if block.detection_p is not None:
        bad = ~(block.detection_p <= preparation.detection_limit) & np.isfinite(values)
        undetected = int(bad.sum())
        values = np.where(bad, np.nan, values)
    if preparation.kind == "beta":
        outside = (values < -_SLACK) | (values > 1.0 + _SLACK)
        if outside.any():
            row = int(np.flatnonzero(outside.any(axis=1))[0])
            found = values[row][outside[row]][0]
            raise FormatError(
                f"{source}: expected betas in [0, 1], found {found:.6g} at {str(block.features[row])!r} "
                f"({int(outside.sum())} values of this block). Say --kind m for M values, --kind other for another "
                "measure."
            )
        values = np.clip(values, 0.0, 1.0)
        if not preparation.keep_betas:
            values = m_values(values)
    changed = 0
    if preparation.reach > 0:
        found_values = winsorise(values, reach=preparation.reach)
        values, changed = found_values.values, int(found_values.n_changed.sum())
    return PreparedBlock(block.features, values, changed, undetected)


@dataclass(frozen=True, slots=True, eq=False)
class _Scanner:
    design: VoxelwiseDesign
    preparation: Preparation
    outcome: Outcome
    source: str

    def __call__(self, block: Block) -> tuple[FeatureScan, Shaped[np.ndarray, " features"], int, int]:
        prepared = prepare_block(block, self.preparation, self.source)
        scan = scan_features(self.design, prepared.values, outcome=self.outcome)
        return scan, prepared.features, prepared.n_winsorised, prepared.n_undetected


@dataclass(frozen=True, slots=True, eq=False)
class Preparer:
    """Prepares blocks; picklable."""

    preparation: Preparation
    source: str

    def __call__(self, block: Block) -> PreparedBlock:
        """Return the values of a block as they are analysed."""
        return prepare_block(block, self.preparation, self.source)


@dataclass(frozen=True, slots=True, eq=False)
class TraitEstimates:
    """Estimates of one trait over all features, before variances are moderated."""

    n: Int[np.ndarray, " features"]
    degrees_of_freedom: Float64[np.ndarray, " features"]
    beta: Float64[np.ndarray, " features"]
    unscaled: Float64[np.ndarray, " features"]
    variance: Float64[np.ndarray, " features"]
    status: Int8[np.ndarray, " features"]


_NUMBERS = ("degrees_of_freedom", "beta", "unscaled", "variance")
_COUNTS = ("n", "status")


@dataclass(slots=True, eq=False)
class Spool:
    """Estimates on disk: block after block, in a block trait after trait."""

    folder: Path
    n_traits: int
    sizes: list[int] = field(default_factory=list)

    def append(self, scan: FeatureScan) -> None:
        """Add the estimates of the next features."""
        for names, file, dtype in ((_NUMBERS, "numbers", np.float64), (_COUNTS, "counts", np.int32)):
            block = np.stack([np.asarray(getattr(scan, name), dtype=dtype) for name in names], axis=1)
            with (self.folder / f"{file}.raw").open("ab" if self.sizes else "wb") as stream:
                block.tofile(stream)
        self.sizes.append(int(scan.n.shape[1]))

    @property
    def n_features(self) -> int:
        """Features so far."""
        return sum(self.sizes)

    def trait(self, k: int) -> TraitEstimates:
        """Return the estimates of one trait."""
        numbers = self._read("numbers", k, len(_NUMBERS), np.dtype(np.float64))
        counts = self._read("counts", k, len(_COUNTS), np.dtype(np.int32))
        named = dict(zip(_NUMBERS, numbers, strict=True))
        return TraitEstimates(n=counts[0].astype(np.int64), status=counts[1].astype(np.int8), **named)

    def _read(self, file: str, k: int, rows: int, dtype: np.dtype) -> Shaped[np.ndarray, "rows features"]:
        out = np.empty((rows, self.n_features), dtype=dtype)
        first = 0
        with (self.folder / f"{file}.raw").open("rb") as stream:
            for size in self.sizes:
                stream.seek(dtype.itemsize * rows * (first * self.n_traits + k * size))
                part = np.fromfile(stream, dtype=dtype, count=rows * size)
                out[:, first : first + size] = part.reshape(rows, size)
                first += size
        return out


def scan_all(
    source: ScanSource, design: VoxelwiseDesign, outcome: Outcome, context: Context
) -> tuple[Spool, Shaped[np.ndarray, " features"], dict[str, int]]:
    """Return the estimates of all features, their names, and how many values were winsorised or not detected."""
    context.shards.mkdir(parents=True, exist_ok=True)
    spool = Spool(context.shards, int(design.n.size))
    names: list[Shaped[np.ndarray, " some"]] = []
    counts = {"values_winsorised": 0, "values_not_detected": 0}
    scanner = _Scanner(design, source.preparation, outcome, str(source.matrix.path))
    n_blocks = -(-source.matrix.about // source.size)
    results = context.executor.map(scanner, source.blocks())
    for scan, features, winsorised, undetected in context.progress.track(results, "Testing features", n_blocks):
        spool.append(scan)
        names.append(features)
        counts["values_winsorised"] += winsorised
        counts["values_not_detected"] += undetected
    features = np.concatenate(names) if names else np.empty(0, dtype=np.dtypes.StringDType())
    return spool, features, counts
