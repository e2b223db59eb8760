r"""Parallel ICA: independent components of two tables of the same people whose loadings are drawn to correlate.

Each table X (people x columns) is a mixture ``X = A S`` of k independent rows S with the loadings A of the people.
After PCA to k rows Z of mean 0 and variance 1 (A_w their mixing), U = W Z follows the infomax natural gradient::

    W <- W + eta (I + (1 - 2 g(U)) U' / columns) W,       g the logistic function

and A = A_w W^-1. Between these steps the most correlated pair of loadings (a, b), |r| > c0, moves towards more
correlation along the gradient of r^2, in units of their own spread::

    a <- a + eta_c sd_a r (b~ / sd_b - r a~ / sd_a),      b likewise,     W <- (A_w^+ A)^-1

eta is multiplied by 0.9 when the step turns by more than 60 degrees, eta_c when the infomax entropy falls. The variate
of a component in any person is ``X S^+``, so that held-out people have one.

Components of several random starts are clustered (ICASSO); a cluster's quality is the mean |correlation| inside, 0 for
starts that have none in it, less that with the others, and its component the one most like the rest of it.

References
----------
Liu et al. (2009), Hum. Brain Mapp. 30:241 (10.1002/hbm.20508); Bell & Sejnowski (1995), Neural Comput. 7:1129; Amari,
Cichocki & Yang (1996), NIPS 8:757 (natural gradient); Himberg, Hyvarinen & Esposito (2004), NeuroImage 22:1214
(ICASSO); Wax & Kailath (1985), IEEE Trans. ASSP 33:387 (number of components).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.cohort.multivariate.model import FittedModes, Penalty
from brainlocus.cohort.multivariate.preparation import Standardised
from brainlocus.cohort.multivariate.sparse_cca import modes_of_weights

__all__ = [
    "LinkedModes",
    "ParallelIca",
    "StableComponents",
    "count_components",
    "fit_parallel_ica",
    "linked_modes",
    "stable_components",
]

MAX_STEPS = 512
SETTLED = 1e-6
LINK_FROM = 0.3
"""Pairs of loadings below this correlation are not drawn together."""
LINK_RATE = 0.05
RATE = 0.3
TURN = 60.0
"""Degrees between successive steps above which the rate shrinks (Makeig et al. 1997, the usual infomax schedule)."""
SHRINK = 0.9


@dataclass(frozen=True, slots=True, eq=False)
class _Whitened:
    z: Float64[np.ndarray, "components columns"]
    mixing: Float64[np.ndarray, "people components"]


@dataclass(frozen=True, slots=True, eq=False)
class LinkedModes:
    """Pairs of components as modes."""

    modes: FittedModes
    x_component: Int[np.ndarray, " modes"]
    """Row of the component of X; -1 where there is no further pair."""
    y_component: Int[np.ndarray, " modes"]


@dataclass(frozen=True, slots=True)
class ParallelIca:
    """Parallel ICA from one start, so that cross-validation and permutation do the same as often as they like."""

    components: tuple[int, int]
    """Of X and of Y."""
    penalties: tuple[Penalty, ...] = ((0.0, 0.0),)
    sparse: bool = False

    def prepare(self, x: Standardised, *, weights: bool) -> "PreparedIca":  # noqa: ARG002
        """Return the model for these training people."""
        return PreparedIca(x, self.components)


@dataclass(frozen=True, slots=True, eq=False)
class PreparedIca:
    """Parallel ICA of some training people."""

    x: Standardised
    components: tuple[int, int]

    def fit(self, y: Standardised, penalties: Sequence[Penalty], n_modes: int) -> list[FittedModes]:
        """Return the pairs of components whose loadings correlate most."""
        sources = fit_parallel_ica(self.x.train, y.train, self.components)
        return [linked_modes(self.x, y, sources[0], sources[1], n_modes).modes for _ in penalties]


def linked_modes(
    x: Standardised,
    y: Standardised,
    first: Float64[np.ndarray, "components_x columns_x"],
    second: Float64[np.ndarray, "components_y columns_y"],
    n_modes: int,
) -> LinkedModes:
    """Return pairs of components as modes, the most correlated first, each component in one pair."""
    weights = [np.linalg.pinv(sources) for sources in (first, second)]
    r = _correlations(x.train @ weights[0], y.train @ weights[1])
    x_weights, y_weights = np.zeros((first.shape[1], n_modes)), np.zeros((second.shape[1], n_modes))
    pairs = np.full((2, n_modes), -1, dtype=np.int64)
    left = np.abs(r)
    for k in range(min(n_modes, *r.shape)):
        i, j = np.unravel_index(int(left.argmax()), left.shape)
        x_weights[:, k], y_weights[:, k] = weights[0][:, i], weights[1][:, j] * np.copysign(1.0, r[i, j])
        left[i], left[:, j] = -1.0, -1.0
        pairs[:, k] = i, j
    return LinkedModes(modes_of_weights(x, y, x_weights, y_weights), pairs[0], pairs[1])


def fit_parallel_ica(
    x: Float64[np.ndarray, "people columns_x"],
    y: Float64[np.ndarray, "people columns_y"],
    components: tuple[int, int],
    *,
    rng: np.random.Generator | None = None,
) -> tuple[Float64[np.ndarray, "components_x columns_x"], Float64[np.ndarray, "components_y columns_y"]]:
    """Return the independent components of both tables, of mean 0 and about variance 1.

    Parameters
    ----------
    rng
        For random starts; None starts at the principal components.
    """
    sides = (_whiten(x, components[0]), _whiten(y, components[1]))
    unmixing = [_start(side.z.shape[0], rng) for side in sides]
    delta: list[Float64[np.ndarray, "size size"] | None] = [None, None]
    entropy, rates, link = [-np.inf, -np.inf], [RATE, RATE], LINK_RATE
    for _ in range(MAX_STEPS):
        started = list(unmixing)
        for k, side in enumerate(sides):
            step, now = _infomax_step(side.z, unmixing[k])
            step = rates[k] * step
            before = delta[k]
            if before is not None and _angle(step, before) > TURN:
                rates[k] *= SHRINK
            if now < entropy[k]:
                link *= SHRINK
            unmixing[k] = unmixing[k] + step
            delta[k], entropy[k] = step, now
        unmixing[0], unmixing[1] = _link(sides, unmixing[0], unmixing[1], link)
        if max(float(np.abs(w - old).max()) for w, old in zip(unmixing, started, strict=True)) < SETTLED:
            break
    first, second = (w @ side.z for w, side in zip(unmixing, sides, strict=True))
    return first, second


def _whiten(x: Float64[np.ndarray, "people columns"], components: int) -> _Whitened:
    centred = x - x.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh(centred @ centred.T)
    top = vectors[:, ::-1][:, :components]
    singular = np.sqrt(np.maximum(values[::-1][:components], np.finfo(float).tiny))
    root = np.sqrt(x.shape[1])
    return _Whitened(root * (top.T @ centred) / singular[:, None], top * singular / root)


def _start(size: int, rng: np.random.Generator | None) -> Float64[np.ndarray, "size size"]:
    return np.eye(size) if rng is None else np.linalg.qr(rng.standard_normal((size, size)))[0]


def _infomax_step(
    z: Float64[np.ndarray, "components columns"], w: Float64[np.ndarray, "components components"]
) -> tuple[Float64[np.ndarray, "components components"], float]:
    """Return the natural gradient, and the entropy of g(U) up to a constant."""
    u = w @ z
    n = z.shape[1]
    gradient = (np.eye(w.shape[0]) - np.tanh(u / 2.0) @ u.T / n) @ w  # 1 - 2 g(u) = -tanh(u / 2)
    density = -np.abs(u) - 2.0 * np.log1p(np.exp(-np.abs(u)))
    return gradient, float(density.sum() / n + np.linalg.slogdet(w)[1])


def _angle(step: Float64[np.ndarray, "size size"], before: Float64[np.ndarray, "size size"]) -> float:
    below = float(np.sqrt((step**2).sum() * (before**2).sum()))
    return float(np.degrees(np.arccos(np.clip((step * before).sum() / below, -1.0, 1.0)))) if below > 0 else 0.0


def _link(
    sides: tuple[_Whitened, _Whitened],
    first: Float64[np.ndarray, "size_x size_x"],
    second: Float64[np.ndarray, "size_y size_y"],
    rate: float,
) -> tuple[Float64[np.ndarray, "size_x size_x"], Float64[np.ndarray, "size_y size_y"]]:
    """Return unmixing matrices whose most correlated loadings are drawn together."""
    a, b = sides[0].mixing @ np.linalg.inv(first), sides[1].mixing @ np.linalg.inv(second)
    r = _correlations(a, b)
    i, j = np.unravel_index(int(np.abs(r).argmax()), r.shape)
    strength = float(r[i, j])
    if abs(strength) <= LINK_FROM:
        return first, second
    u, v = a[:, i] - a[:, i].mean(), b[:, j] - b[:, j].mean()
    sd_u, sd_v = float(u.std()), float(v.std())
    a[:, i] += rate * sd_u * strength * (v / sd_v - strength * u / sd_u)
    b[:, j] += rate * sd_v * strength * (u / sd_u - strength * v / sd_v)
    return _unmix(sides[0].mixing, a), _unmix(sides[1].mixing, b)


def _unmix(
    mixing: Float64[np.ndarray, "people size"], loadings: Float64[np.ndarray, "people size"]
) -> Float64[np.ndarray, "size size"]:
    """Return (mixing^+ loadings)^-1; the columns of `mixing` are orthogonal."""
    return np.asarray(np.linalg.inv((mixing / (mixing**2).sum(axis=0)).T @ loadings))


def _correlations(
    a: Float64[np.ndarray, "people first"], b: Float64[np.ndarray, "people second"]
) -> Float64[np.ndarray, "first second"]:
    u, v = a - a.mean(axis=0), b - b.mean(axis=0)
    below = np.outer(np.sqrt((u * u).sum(axis=0)), np.sqrt((v * v).sum(axis=0)))
    return np.asarray(np.divide(u.T @ v, below, out=np.zeros_like(below), where=below > 0))


@dataclass(frozen=True, slots=True, eq=False)
class StableComponents:
    """Components that came out of many starts."""

    sources: Float64[np.ndarray, "components columns"]
    quality: Float64[np.ndarray, " components"]
    """Mean |correlation| with the components of its cluster less that with all others; 1 is perfect."""


def stable_components(
    runs: Sequence[Float64[np.ndarray, "components columns"]], *, least: float = 0.8
) -> StableComponents:
    """Return a component for each cluster of the components of several runs, best first, above a quality.

    All are kept when none is above.
    """
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    every = np.vstack(runs)
    alike = np.abs(np.corrcoef(every))
    size = runs[0].shape[0]
    if every.shape[0] == 1:
        return StableComponents(every, np.ones(1))
    distance = np.clip(1.0 - (alike + alike.T) / 2.0, 0.0, None)
    np.fill_diagonal(distance, 0.0)
    labels = fcluster(linkage(squareform(distance, checks=False), "average"), size, "maxclust")
    centres: list[int] = []
    quality: list[float] = []
    for label in np.unique(labels):
        inside: Int[np.ndarray, " members"] = np.flatnonzero(labels == label)
        outside = np.flatnonzero(labels != label)
        own = alike[np.ix_(inside, inside)]
        centres.append(int(inside[own.sum(axis=0).argmax()]))
        others = float(alike[np.ix_(inside, outside)].mean()) if outside.size else 0.0
        # A run without a component in the cluster counts as one that is like none of it.
        quality.append(float(own.sum()) / (inside.size * max(inside.size, len(runs))) - others)
    order = np.argsort(-np.array(quality), kind="stable")
    good = [k for k in order if quality[k] > least] or list(order)
    return StableComponents(every[[centres[k] for k in good]], np.array([quality[k] for k in good]))


def count_components(x: Float64[np.ndarray, "people columns"]) -> int:
    """Return the number of components of the shortest description (MDL), at most 20 and a fifth of the people.

    Columns that are alike count as several observations, and noise that differs between columns as components, so the
    number errs upwards, which the limits hold.
    """
    centred = x - x.mean(axis=1, keepdims=True)
    values = np.linalg.eigvalsh(centred @ centred.T if x.shape[0] <= x.shape[1] else centred.T @ centred)[::-1]
    values = values[values > 1e-10 * values[0]]
    n, size = x.shape[1], values.size
    most = max(1, min(20, x.shape[0] // 5, size - 1))
    costs = []
    for k in range(1, most + 1):
        rest = values[k:]
        ratio = np.log(rest).mean() - np.log(rest.mean()) if rest.size else 0.0
        costs.append(-n * (size - k) * ratio + 0.5 * k * (2 * size - k) * np.log(n))
    return int(np.argmin(costs)) + 1
