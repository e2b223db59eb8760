"""What is drawn of a scan, as arrays: places along the genome, points thinned to pixels, Q-Q curves, labels.

Data flow::

    chromosome, position --genome_layout, place_on_genome--> x
    -log10 p --make_scale, AxisScale.forward--> height
    x, height --thin_to_pixels--> points, at most one per pixel
    tests per 0.01 of -log10 p (and the smallest p) --qq_curve--> expected, observed
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped
from scipy.stats import beta

from brainlocus.core.variants import chromosome_rank
from brainlocus.numerics.tails import MEDIAN_CHI2

__all__ = [
    "GENOME_WIDE",
    "AxisScale",
    "GenomeLayout",
    "QqCurve",
    "ScaleName",
    "genome_layout",
    "lead_rows",
    "make_scale",
    "place_labels",
    "place_on_genome",
    "power_text",
    "qq_band",
    "qq_curve",
    "qq_curve_of_tests",
    "same_sites",
    "thin_to_pixels",
]

GENOME_WIDE = 5e-8
"""The usual threshold of one genome-wide scan (Pe'er et al. 2008, Genet. Epidemiol. 32:381)."""
_GAP = 0.004
"""Space between chromosomes, as a share of all."""
_LINEAR_TO = 20.0
"""-log10 p up to which a broken axis is linear."""
_BREAK_FROM = 40.0
"""An axis is broken only when the top is above this."""
_LEAD_WINDOW = 500_000
"""Leads of a chromosome are farther apart than this, in bp."""

ScaleName = Literal["auto", "linear", "log"]


@dataclass(frozen=True, slots=True, eq=False)
class GenomeLayout:
    """Chromosomes side by side, each from its first to its last position in the data."""

    names: tuple[str, ...]
    """Numbers first, then X, Y, XY, MT, then others by name."""
    first: Int[np.ndarray, " chromosomes"]
    start: Float[np.ndarray, " chromosomes"]
    """Where each begins on the axis, in bp."""
    stop: Float[np.ndarray, " chromosomes"]

    @property
    def length(self) -> float:
        """Length of the axis, in bp."""
        return float(self.stop[-1]) if self.stop.size else 1.0


def genome_layout(chromosome: Shaped[np.ndarray, " variants"], position: Int[np.ndarray, " variants"]) -> GenomeLayout:
    """Return the chromosomes that occur, in order."""
    names, inverse = np.unique(chromosome.astype(np.str_), return_inverse=True)
    order = np.argsort(chromosome_rank(names), kind="stable")
    low = np.full(names.size, np.iinfo(np.int64).max)
    high = np.zeros(names.size, dtype=np.int64)
    np.minimum.at(low, inverse, position)
    np.maximum.at(high, inverse, position)
    low, high = low[order], high[order]
    lengths = (high - low).astype(np.float64)
    lengths = np.maximum(lengths, max(float(lengths.sum()), 1.0) * _GAP)
    gap = _GAP * float(lengths.sum())
    start = np.concatenate([[0.0], np.cumsum(lengths + gap)[:-1]]) if names.size else np.empty(0)
    return GenomeLayout(tuple(names[order].tolist()), low, start, start + lengths)


def place_on_genome(
    layout: GenomeLayout, chromosome: Shaped[np.ndarray, " variants"], position: Int[np.ndarray, " variants"]
) -> tuple[Float[np.ndarray, " variants"], Int[np.ndarray, " variants"]]:
    """Return each variant's place on the axis, and the number of its chromosome in the layout (-1: not in it)."""
    at = {name: k for k, name in enumerate(layout.names)}
    names, inverse = np.unique(chromosome.astype(np.str_), return_inverse=True)
    number = np.array([at.get(str(name), -1) for name in names], dtype=np.int64)[inverse]
    known = np.maximum(number, 0)
    if not layout.names:
        return np.zeros(position.size), number
    x = layout.start[known] + (position - layout.first[known])
    middle = (layout.start + layout.stop) / 2
    single = layout.stop - layout.start <= 2.0
    return np.where(single[known], middle[known], x), number


@dataclass(frozen=True, slots=True)
class AxisScale:
    """How -log10 p becomes height: linear to 20 and logarithmic above where the top needs it."""

    name: ScaleName
    top: float
    """Largest -log10 p that fits."""

    @property
    def broken(self) -> bool:
        """Whether the axis is linear below 20 and logarithmic above."""
        return self.name == "auto" and self.top > _BREAK_FROM

    def forward(self, values: Float[np.ndarray, " points"]) -> Float[np.ndarray, " points"]:
        """Return the heights of -log10 p."""
        if self.name == "log":
            return np.asarray(np.log10(1.0 + values))
        if not self.broken:
            return values
        above = np.log(np.maximum(values, _LINEAR_TO) / _LINEAR_TO) / np.log(self.top / _LINEAR_TO)
        return np.asarray(np.where(values <= _LINEAR_TO, values, _LINEAR_TO * (1.0 + above)))

    def ticks(self) -> Float[np.ndarray, " ticks"]:
        """Return the values of -log10 p that are named on the axis."""
        powers = np.array([k * 10.0**e for e in range(6) for k in (1, 2, 5)])
        if self.name == "log":
            return np.concatenate([[0.0], powers[powers <= self.top]])
        if self.broken:
            # From 30 on, so that names do not overlap those of the linear part.
            return np.concatenate([np.arange(0.0, 21.0, 5.0), powers[(powers > 30) & (powers <= self.top)]])
        step = next(s for s in (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, *(powers * 100)) if self.top / s <= 10)
        return np.arange(0.0, self.top + 1e-9, step)


def power_text(p: float) -> str:
    """Return a p-value as text.

    Examples
    --------
    >>> power_text(5e-8), power_text(0.05), power_text(1e-5)
    ('5 × 10⁻⁸', '0.05', '10⁻⁵')
    """
    if p >= 1e-3:
        return f"{p:.3g}"
    mantissa, exponent = f"{p:.1e}".split("e")
    power = "10⁻" + str(abs(int(exponent))).translate(str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹"))
    plain = f"{float(mantissa):g}"
    return power if plain == "1" else f"{plain} × {power}"


def make_scale(name: ScaleName, values: Sequence[float]) -> AxisScale:
    """Return the scale on which all values fit, with some room above."""
    finite = [v for v in values if np.isfinite(v)]
    top = float(max([*finite, 1.0]))
    return AxisScale(name, top * 1.02)


def thin_to_pixels(
    x: Float[np.ndarray, " points"],
    height: Float[np.ndarray, " points"],
    *,
    width: float,
    top: float,
    pixels: tuple[int, int],
) -> Int[np.ndarray, " kept"]:
    """Return one point per pixel, the highest, in the order of the points; what is left out is under what is kept.

    Parameters
    ----------
    width, top
        Extent of the axes, from 0.
    pixels
        Their size.
    """
    columns, rows = pixels
    column = np.clip((x / max(width, 1e-300) * columns).astype(np.int64), 0, columns - 1)
    row = np.clip((height / max(top, 1e-300) * rows).astype(np.int64), 0, rows - 1)
    cell = column * rows + row
    best = np.full(columns * rows, -1, dtype=np.int64)
    rising = np.argsort(height, kind="stable")
    best[cell[rising]] = rising  # where a cell is named twice, the last and highest stays
    return np.sort(best[best >= 0])


def lead_rows(
    chromosome: Shaped[np.ndarray, " tests"],
    position: Int[np.ndarray, " tests"],
    neg_log10_p: Float[np.ndarray, " tests"],
    *,
    at_least: float,
    count: int,
) -> Int[np.ndarray, " leads"]:
    """Return the strongest tests, none within 500,000 bp of a stronger one, at most `count`; ties by row."""
    strong = np.flatnonzero(neg_log10_p >= at_least)
    order = strong[np.argsort(-neg_log10_p[strong], kind="stable")]
    _, number = np.unique(chromosome[order].astype(np.str_), return_inverse=True)
    left = np.ones(order.size, dtype=bool)
    leads: list[int] = []
    for k in range(order.size):
        if not left[k]:
            continue
        leads.append(int(order[k]))
        if len(leads) == count:
            break
        left &= (number != number[k]) | (np.abs(position[order] - position[order[k]]) > _LEAD_WINDOW)
    return np.array(leads, dtype=np.int64)


def same_sites(
    chromosome: Shaped[np.ndarray, " sites"],
    position: Int[np.ndarray, " sites"],
    of_chromosome: Shaped[np.ndarray, " tests"],
    of_position: Int[np.ndarray, " tests"],
) -> Bool[np.ndarray, " tests"]:
    """Return which tests are at one of a few sites."""
    found = np.zeros(of_position.size, dtype=bool)
    for name, place in zip(chromosome.tolist(), position.tolist(), strict=True):
        at = np.flatnonzero(of_position == place)
        found[at] |= of_chromosome[at] == name
    return found


def place_labels(
    x: Float[np.ndarray, " labels"],
    y: Float[np.ndarray, " labels"],
    size: Float[np.ndarray, " labels"],
    *,
    line: float,
    width: float,
) -> tuple[Float[np.ndarray, " labels"], Float[np.ndarray, " labels"]]:
    """Return where labels are centred so that none lies on another or on a point, and their lower edges, above `y`.

    Parameters
    ----------
    x, y
        Points to be named, `y` upwards; all in one unit.
    size
        Widths of the labels.
    line
        Height of a label.
    width
        Extent of the axes: labels are pushed inside.
    """
    half = size / 2
    centre = np.clip(x, half, np.maximum(width - half, half))
    lower = y + 0.4 * line
    taken = [(float(px), float(py) - line / 3, line / 3, 2 * line / 3) for px, py in zip(x, y, strict=True)]
    for k in np.argsort(y, kind="stable"):
        clash = True
        while clash:
            clash = False
            for middle, bottom, reach, height in taken:
                near = abs(centre[k] - middle) < half[k] + reach
                if near and bottom - line < lower[k] < bottom + height:
                    lower[k], clash = bottom + height, True
        taken.append((float(centre[k]), float(lower[k]), float(half[k]), line))
    return centre, lower


@dataclass(frozen=True, slots=True, eq=False)
class QqCurve:
    """Observed against expected -log10 p of one trait, rising."""

    name: str
    expected: Float[np.ndarray, " points"]
    observed: Float[np.ndarray, " points"]
    n_tests: int
    lambda_gc: float
    """NaN where it is not known."""
    open_above: float = float("inf")
    """Tests above this -log10 p were counted, not kept."""


def qq_curve(
    name: str,
    lower: Float[np.ndarray, " bins"],
    counts: Int[np.ndarray, " bins"],
    *,
    lambda_gc: float,
    width: float,
    open_from: float = float("inf"),
    smallest: Float[np.ndarray, " known"] | None = None,
) -> QqCurve:
    """Return the curve from a histogram of -log10 p and, in its tail, the tests themselves.

    The k-th smallest of N p-values is expected at k / (N + 1). Of the c tests of a bin the weakest, whose rank is the
    number of tests in this bin and above, is drawn: it is expected at 1 / (c + 1) of the bin's width.

    Parameters
    ----------
    lower
        Lower edges of the bins, rising.
    open_from
        Lower edge of the bin that holds everything above.
    smallest
        -log10 p of all tests above some threshold, in any order: they replace the bins that hold them.
    """
    n = int(counts.sum())
    above = np.cumsum(counts[::-1])[::-1]
    observed = lower + width / (counts + 1.0)
    rank = above.astype(np.float64)
    known = np.sort(np.empty(0) if smallest is None else smallest)[::-1][:n]
    in_bins = rank > known.size
    ranks = np.concatenate([np.arange(1.0, known.size + 1), rank[in_bins][::-1]])
    values = np.concatenate([known, observed[in_bins][::-1]])
    is_open = lower.size > 0 and not known.size and bool(lower[-1] >= open_from)
    expected = -np.log10(ranks / (n + 1.0)) if n else ranks
    return QqCurve(name, expected[::-1], values[::-1], n, lambda_gc, float(lower[-1]) if is_open else float("inf"))


def qq_curve_of_tests(name: str, neg_log10_p: Float[np.ndarray, " tests"], *, points: int = 4_000) -> QqCurve:
    """Return the curve of tests that are all at hand: the strongest thousand, and evenly in height below."""
    from scipy.special import ndtri

    ordered = np.sort(neg_log10_p[np.isfinite(neg_log10_p)])[::-1]
    n = int(ordered.size)
    if not n:
        return QqCurve(name, ordered, ordered, 0, float("nan"))
    ranks = np.unique(
        np.concatenate([np.arange(1, min(n, 1000) + 1), np.geomspace(1, n, points).astype(np.int64), [n]])
    )
    median = float(np.median(ordered))
    chi2 = float(ndtri(10.0**-median / 2.0) ** 2)
    expected = -np.log10(ranks / (n + 1.0))
    return QqCurve(name, expected[::-1], ordered[ranks - 1][::-1], n, chi2 / MEDIAN_CHI2)


def qq_band(
    n_tests: int, *, points: int = 200
) -> tuple[Float[np.ndarray, " points"], Float[np.ndarray, " points"], Float[np.ndarray, " points"]]:
    """Return expected -log10 p and the bounds of its central 95 % among `n_tests` independent tests of nothing.

    The k-th smallest p is Beta(k, N + 1 - k) (Casella & Berger, Statistical Inference, 5.4.4).
    """
    rank = np.unique(np.geomspace(1, max(n_tests, 1), points).astype(np.int64)).astype(np.float64)
    n = float(max(n_tests, 1))
    low, high = beta.ppf(0.975, rank, n + 1 - rank), beta.ppf(0.025, rank, n + 1 - rank)
    return -np.log10(rank / (n + 1)), -np.log10(low), -np.log10(high)
