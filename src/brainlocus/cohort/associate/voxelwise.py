"""Voxel-wise association: maps of many people regressed on many targets, in one pass over the images.

Data flow::

    targets, covariates --prepare_voxelwise--> VoxelwiseDesign               (once)
    VoxelwiseDesign --start_voxelwise--> VoxelwiseSums                       (per range of voxels)
    VoxelwiseSums + some images --add_voxelwise--> VoxelwiseSums, changed    (per batch)
    VoxelwiseSums --finish_voxelwise--> VoxelwiseMaps                        (per group of targets and range of voxels)

Targets that the same people have form a group. Over the n people of a group, Z is an orthogonal basis of the intercept
and the covariates and X the targets freed of them (Frisch-Waugh-Lovell), scaled so that Z'Z = n I and x'x = n. A voxel
y that all of them have needs three sums::

    c = Z'y,  b = x'y,  q = y'y;    sxx = n,  sxy = b,  syy = q - c'c / n

A voxel that some people lack is regressed on those who have it. With D = sum over the absent of [z x][z x]', which only
such voxels keep::

    S = n I - D_zz,  u = -D_zx;     sxx = n - D_xx - u'S^-1 u,  sxy = b - u'S^-1 c,  syy = q - c'S^-1 c

Either way, with N the people who have both::

    r = sxy / sqrt(sxx syy),  df = N - rank(S) - 1,  t = r sqrt(df / (1 - r^2)),  beta = sxy / sxx

which are partial correlation, t and slope of the regression of the voxel on the target and the covariates. The sums do
not grow with the number of people.

References
----------
Frisch & Waugh (1933), Econometrica 1:387; Lovell (1963), JASA 58:993.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, no_type_check

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Shaped
from numba import njit

from brainlocus.numerics import covariate_basis, neg_log10_p_from_t, project_out, refuse_infinite, same_people

__all__ = [
    "Precision",
    "TargetGroup",
    "VoxelwiseDesign",
    "VoxelwiseMaps",
    "VoxelwiseSums",
    "add_voxelwise",
    "finish_voxelwise",
    "prepare_one_sample",
    "prepare_voxelwise",
    "start_voxelwise",
    "voxel_means",
    "voxels_at_once",
    "voxelwise_bytes",
]

Precision = Literal["double", "single"]

_TILE = 1 << 13
_TILE_CELLS = 1 << 19
"""People, or sums, times voxels of a product: what stays in the cache."""
_FEW_ABSENT = 0.1
"""Share of absent people below which their products are added one by one."""
_CELLS = 1 << 17
"""Voxels times targets that are finished at once."""
_SINGULAR = 1e-9
"""Share of n below which an eigenvalue of S is none: the people of the voxel leave the covariates collinear."""
_NO_SPREAD = 1e-10
"""Share of a target's sum of squares below which the people of the voxel, or the covariates, leave none of it."""
_ROUNDING = {"double": 1e-12, "single": 1e-6}
"""Share of a voxel's sum of squares that rounding may leave of a voxel that the covariates determine."""
_SINGLE_EPS = float(np.finfo(np.float32).eps)
MAX_R = 1.0 - 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class TargetGroup:
    """Targets that exactly the same people have."""

    rows: Bool[np.ndarray, " people"]
    """People with the targets and all covariates."""
    n: int
    members: Int[np.ndarray, " targets"]
    """Which columns of the targets."""
    basis: Float64[np.ndarray, "people rank"]
    """Intercept (ones; unless it is the target) and covariates, orthogonal, with sum of squares n; 0 for people
    outside."""
    residuals: Float64[np.ndarray, "people targets"]
    """Targets freed of the basis, with sum of squares n; 0 for people outside."""
    scale: Float64[np.ndarray, " targets"]
    """What the targets were divided by."""
    intercept: bool = True
    """False: the target is the intercept, and the basis has none."""

    @property
    def rank(self) -> int:
        """Columns of the basis."""
        return int(self.basis.shape[1])


@dataclass(frozen=True, slots=True, eq=False)
class VoxelwiseDesign:
    """Targets and covariates, reduced once and reused for every image."""

    groups: tuple[TargetGroup, ...]
    status: Shaped[np.ndarray, " targets"]
    """``ok``, or why a target is in no group."""
    n: Int[np.ndarray, " targets"]
    """People with the target and all covariates."""
    dropped: tuple[str, ...]
    """Covariates that are constant or combinations of others among everybody."""
    min_share: float
    min_people: int
    precision: Precision
    intercept: bool = True
    """False: the mean of the maps is tested."""

    @property
    def n_moments(self) -> int:
        """Sums every voxel has, besides its squares."""
        return sum(g.rank + g.members.size for g in self.groups)

    @property
    def n_products(self) -> int:
        """Sums that a voxel which somebody lacks has besides."""
        return sum(_n_products(g) for g in self.groups)


@dataclass(slots=True, eq=False)
class VoxelwiseSums:
    """Sums over the images so far; `add_voxelwise` changes them."""

    design: VoxelwiseDesign
    shift: Float64[np.ndarray, " voxels"]
    """Taken from a voxel's values, so that sums of squares do not cancel; NaN until somebody has the voxel."""
    moments: Float64[np.ndarray, "moments voxels"]
    squares: Float64[np.ndarray, "groups voxels"]
    slot: Int[np.ndarray, " voxels"]
    """Row of `absent` of a voxel that somebody lacks, -1 for none."""
    absent: Float64[np.ndarray, "slots products"]
    """Sums of products over the people without the voxel."""
    n_slots: int
    deferred: Bool[np.ndarray, " voxels"]
    """Voxels that somebody lacks and for which there was no row left: their sums are of no use."""


@dataclass(frozen=True, slots=True, eq=False)
class VoxelwiseMaps:
    """Estimates of a group's targets in a range of voxels; NaN where there are none."""

    n: Int[np.ndarray, " voxels"]
    """People of the group who have the voxel."""
    degrees_of_freedom: Float64[np.ndarray, " voxels"]
    beta: Float64[np.ndarray, "targets voxels"]
    """Map units per unit of the target."""
    standard_error: Float64[np.ndarray, "targets voxels"]
    r: Float64[np.ndarray, "targets voxels"]
    """Partial correlation."""
    t: Float64[np.ndarray, "targets voxels"]
    neg_log10_p: Float64[np.ndarray, "targets voxels"]


@dataclass(frozen=True, slots=True, eq=False)
class _Moments:
    """What is left of a voxel and the targets after the covariates."""

    sxx: Float64[np.ndarray, "targets voxels"]
    sxy: Float64[np.ndarray, "targets voxels"]
    syy: Float64[np.ndarray, " voxels"]
    n: Float64[np.ndarray, " voxels"]
    rank: Float64[np.ndarray, " voxels"]


def prepare_voxelwise(
    targets: Float[np.ndarray, "people targets"],
    *,
    covariates: Float[np.ndarray, "people covariates"] | None = None,
    covariate_names: Sequence[str] | None = None,
    min_share: float = 0.5,
    min_people: int = 10,
    precision: Precision = "double",
) -> VoxelwiseDesign:
    """Reduce targets and covariates to what every image shares.

    Parameters
    ----------
    targets
        NaN is missing.
    covariates
        Without an intercept; people with NaN take no part.
    min_share
        Share of a target's people that a voxel needs.
    min_people
        People that a target and a voxel need.
    precision
        Of the products with a batch of images; their sums over batches are in double precision always.

    Raises
    ------
    ValueError
        An infinite target, or nobody with complete covariates.
    """
    n_people, n_targets = targets.shape
    refuse_infinite(targets, [f"target {k + 1}" for k in range(n_targets)])
    others = np.empty((n_people, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    complete = np.asarray(np.isfinite(others).all(axis=1))
    if not complete.any():
        raise ValueError("Nobody has complete covariates; use fewer covariates or impute them first.")
    present = ~np.isnan(targets) & complete[:, None]
    status = np.full(n_targets, "ok", dtype="U48")
    groups = []
    for rows, members in same_people(present):
        group = _group(targets, others, rows, members, status, min_people)
        if group is not None:
            groups.append(group)
    return VoxelwiseDesign(
        tuple(groups),
        status,
        present.sum(axis=0).astype(np.int64),
        covariate_basis(others[complete], covariate_names).dropped,
        min_share,
        min_people,
        precision,
    )


def prepare_one_sample(
    n_people: int,
    *,
    covariates: Float[np.ndarray, "people covariates"] | None = None,
    covariate_names: Sequence[str] | None = None,
    min_share: float = 0.5,
    min_people: int = 10,
    precision: Precision = "double",
) -> VoxelwiseDesign:
    """Return the design that tests whether the mean of the maps is 0, at the mean of the covariates.

    Covariates are centred, so that the regressor is 1 for everybody and orthogonal to them; beta is the mean.

    Parameters
    ----------
    covariates
        As `prepare_voxelwise`.

    Raises
    ------
    ValueError
        Nobody has complete covariates.
    """
    others = np.empty((n_people, 0)) if covariates is None else np.asarray(covariates, dtype=np.float64)
    rows = np.asarray(np.isfinite(others).all(axis=1))
    n = int(rows.sum())
    if not n:
        raise ValueError("Nobody has complete covariates; use fewer covariates or impute them first.")
    found = covariate_basis(others[rows], covariate_names)
    basis = np.zeros((n_people, found.rank - 1))
    basis[rows] = found.q[:, 1:] * np.sqrt(n)
    residuals = rows[:, None].astype(np.float64)
    status = "ok"
    if n < max(min_people, 1):
        status = f"fewer than {min_people} people"
    elif n < found.rank + 1:
        status = "more covariates than people"
    group = TargetGroup(rows, n, np.zeros(1, dtype=np.int64), basis, residuals, np.ones(1), intercept=False)
    return VoxelwiseDesign(
        (group,) if status == "ok" else (),
        np.array([status], dtype="U48"),
        np.array([n], dtype=np.int64),
        found.dropped,
        min_share,
        min_people,
        precision,
        intercept=False,
    )


def _group(
    targets: Float[np.ndarray, "people targets"],
    covariates: Float64[np.ndarray, "people covariates"],
    rows: Bool[np.ndarray, " people"],
    members: Int[np.ndarray, " members"],
    status: Shaped[np.ndarray, " targets"],
    min_people: int,
) -> TargetGroup | None:
    """Return the group of some targets, without those that get a status instead."""
    n = int(rows.sum())
    if n < max(min_people, 1):
        status[members] = f"fewer than {min_people} people"
        return None
    q = covariate_basis(covariates[rows]).q
    if n < q.shape[1] + 2:
        status[members] = "more covariates than people"
        return None
    values = np.asarray(targets[np.ix_(rows, members)], dtype=np.float64)
    values = values - values.mean(axis=0)
    variance = (values**2).mean(axis=0)
    constant = np.ptp(targets[np.ix_(rows, members)], axis=0) == 0
    left = project_out(q, values)
    remaining = (left**2).mean(axis=0)
    determined = ~constant & (remaining <= _NO_SPREAD * variance)
    status[members[constant]] = "target has no variance"
    status[members[determined]] = "target is a combination of the covariates"
    kept = ~constant & ~determined
    if not kept.any():
        return None
    scale = np.sqrt(remaining[kept])
    basis = np.zeros((rows.size, q.shape[1]))
    basis[rows] = q * np.sqrt(n)
    residuals = np.zeros((rows.size, scale.size))
    residuals[rows] = left[:, kept] / scale
    return TargetGroup(rows, n, members[kept], basis, residuals, scale)


def _n_products(group: TargetGroup) -> int:
    p = group.rank
    return p * (p + 1) // 2 + group.members.size * (p + 1)


def voxelwise_bytes(design: VoxelwiseDesign, n_voxels: int, *, slots: int, batch: int) -> int:
    """Return the memory of the sums of `n_voxels`, `slots` of which somebody may lack, and of adding and finishing.

    The images of a batch themselves are not counted: whoever reads them does.
    """
    k, g, products = design.n_moments, len(design.groups), design.n_products
    largest = max((group.members.size for group in design.groups), default=0)
    rank = max((group.rank for group in design.groups), default=1)
    block = max(min(_TILE_CELLS // max(batch, k, 1), _TILE, n_voxels), 1)
    sums = n_voxels * (8 * (k + g + 2) + 2) + 8 * slots * products
    adding = 8 * block * (3 * batch + 2 * k + g) + 16 * batch * (k + products) + 16 * min(block, slots) * products
    finished = min(max(_CELLS // max(largest, 1), 1), n_voxels)
    lacking = min(finished, slots)
    finishing = 8 * finished * (14 * largest + rank + 12) + 8 * lacking * (
        products + rank * (4 * rank + 3 * largest + 4)
    )
    return sums + max(adding, finishing)


def start_voxelwise(design: VoxelwiseDesign, n_voxels: int, *, slots: int | None = None) -> VoxelwiseSums:
    """Return sums of no image.

    Parameters
    ----------
    slots
        Voxels that somebody may lack; further ones are `VoxelwiseSums.deferred`. All by default.
    """
    capacity = n_voxels if slots is None else min(slots, n_voxels)
    return VoxelwiseSums(
        design=design,
        # Without an intercept in the basis, what is tested would move with the values.
        shift=np.full(n_voxels, np.nan if design.intercept else 0.0),
        moments=np.zeros((design.n_moments, n_voxels)),
        squares=np.zeros((len(design.groups), n_voxels)),
        slot=np.full(n_voxels, -1, dtype=np.int64),
        absent=np.zeros((capacity, design.n_products)),
        n_slots=0,
        deferred=np.zeros(n_voxels, dtype=bool),
    )


def add_voxelwise(
    sums: VoxelwiseSums, values: Float[np.ndarray, "batch voxels"], people: Int[np.ndarray, " batch"]
) -> None:
    """Add some images to the sums.

    Parameters
    ----------
    values
        NaN (or infinite) is missing.
    people
        Row of each image in the design.
    """
    design = sums.design
    dtype = np.float32 if design.precision == "single" else np.float64
    rows = np.ascontiguousarray(
        np.concatenate([part for g in design.groups for part in (g.basis[people], g.residuals[people])], axis=1).T,
        dtype=dtype,
    )
    member = np.stack([g.rows[people] for g in design.groups], axis=1)
    n, width = values.shape
    size = max(min(width, _TILE_CELLS // max(n, rows.shape[0]), _TILE), 1)
    for start in range(0, width, size):
        part = slice(start, min(start + size, width))
        chosen = values[:, part]
        if design.intercept:
            _set_shift(sums.shift[part], chosen)
        filled = np.empty(chosen.shape, dtype=dtype)
        lacks = np.zeros(chosen.shape[1], dtype=np.bool_)
        _centre(chosen, sums.shift[part].astype(dtype), member, filled, lacks, sums.squares[:, part])
        sums.moments[:, part] += rows @ filled
        if not lacks.any():
            continue
        lacking = np.flatnonzero(lacks)
        slots = _slots(sums, start + lacking)
        kept = slots >= 0
        if not kept.any():
            continue
        absent = ~np.isfinite(chosen[:, lacking[kept]]).T
        some = absent.any(axis=0)
        products = np.concatenate([_products(g, people[some]) for g in design.groups], axis=1)
        _add_absent(sums.absent, slots[kept], np.ascontiguousarray(absent[:, some]), products)


def _set_shift(shift: Float64[np.ndarray, " voxels"], values: Float[np.ndarray, "batch voxels"]) -> None:
    """Set the shift of voxels that come up first: the mean of the values at hand, in single precision."""
    unset = np.flatnonzero(np.isnan(shift))
    if not unset.size:
        return
    known = values[:, unset]
    present = np.isfinite(known)
    some = present.any(axis=0)
    total = np.where(present, known, 0.0).sum(axis=0, dtype=np.float64)
    shift[unset[some]] = (total[some] / present[:, some].sum(axis=0)).astype(np.float32)


@njit(cache=True, nogil=True)
@no_type_check
def _centre(
    values: Float[np.ndarray, "batch voxels"],
    shift: Float[np.ndarray, " voxels"],
    member: Bool[np.ndarray, "batch groups"],
    filled: Float[np.ndarray, "batch voxels"],
    lacks: Bool[np.ndarray, " voxels"],
    squares: Float64[np.ndarray, "groups voxels"],
) -> None:
    """Fill in values less the shift, 0 where missing; mark voxels that somebody lacks; add up squares of each group."""
    n_voxels = values.shape[1]
    for i in range(values.shape[0]):
        row, out = values[i], filled[i]
        bad = 0
        for v in range(n_voxels):
            moved = row[v] - shift[v]
            out[v] = moved
            bad += 0 if moved - moved == 0.0 else 1  # neither NaN nor infinite
        if bad:
            for v in range(n_voxels):
                if out[v] - out[v] != 0.0:  # true of NaN
                    out[v] = 0.0
                    lacks[v] = True
        for g in range(member.shape[1]):
            if member[i, g]:
                total = squares[g]
                for v in range(n_voxels):
                    value = np.float64(out[v])
                    total[v] += value * value


def _add_absent(
    sums: Float64[np.ndarray, "slots products"],
    slots: Int[np.ndarray, " lacking"],
    absent: Bool[np.ndarray, "lacking batch"],
    products: Float64[np.ndarray, "batch products"],
) -> None:
    """Add the products of the absent: one by one where they are few, else as a matrix product."""
    if absent.sum() < _FEW_ABSENT * absent.size:
        _add_few(sums, slots, absent, products)
    else:
        sums[slots] += absent.astype(np.float64) @ products


@njit(cache=True, nogil=True)
@no_type_check
def _add_few(
    sums: Float64[np.ndarray, "slots products"],
    slots: Int[np.ndarray, " lacking"],
    absent: Bool[np.ndarray, "lacking batch"],
    products: Float64[np.ndarray, "batch products"],
) -> None:
    for k in range(slots.size):
        for i in range(absent.shape[1]):
            if absent[k, i]:
                for j in range(products.shape[1]):
                    sums[slots[k], j] += products[i, j]


def _products(group: TargetGroup, people: Int[np.ndarray, " batch"]) -> Float64[np.ndarray, "batch products"]:
    """Return, for each person, the upper triangle of zz', then of each target zx and xx."""
    z, x = group.basis[people], group.residuals[people]
    first, second = np.triu_indices(group.rank)
    crossed = x[:, :, None] * np.concatenate([np.repeat(z[:, None, :], x.shape[1], axis=1), x[:, :, None]], axis=2)
    return np.concatenate([z[:, first] * z[:, second], crossed.reshape(people.size, -1)], axis=1)


def _slots(sums: VoxelwiseSums, voxels: Int[np.ndarray, " lacking"]) -> Int[np.ndarray, " lacking"]:
    """Return the rows of `absent` of voxels, giving new ones while there are any."""
    new = voxels[(sums.slot[voxels] < 0) & ~sums.deferred[voxels]]
    room = sums.absent.shape[0] - sums.n_slots
    sums.slot[new[:room]] = np.arange(sums.n_slots, sums.n_slots + min(room, new.size))
    sums.n_slots += min(room, new.size)
    sums.deferred[new[room:]] = True
    return np.asarray(sums.slot[voxels])


def voxel_means(sums: VoxelwiseSums) -> Float64[np.ndarray, " voxels"]:
    """Return the means of the largest group's people who have the voxel; NaN for none, and where `deferred`."""
    groups = sums.design.groups
    chosen = max(range(len(groups)), key=lambda k: groups[k].n)
    group, before = groups[chosen], groups[:chosen]
    row = sum(g.rank + g.members.size for g in before)
    column = sum(_n_products(g) for g in before)
    if not group.intercept:  # the target is 1
        row, column = row + group.rank, column + group.rank * (group.rank + 3) // 2
    count = np.full(sums.shift.size, float(group.n))
    lacking = sums.slot >= 0
    count[lacking] -= sums.absent[sums.slot[lacking], column]
    known = (np.rint(count) > 0) & ~sums.deferred
    mean = np.divide(sums.moments[row], count, out=np.full(count.size, np.nan), where=known)
    return np.asarray(mean + sums.shift)


def voxels_at_once(group: TargetGroup) -> int:
    """Return how many voxels `finish_voxelwise` is meant to be given at a time."""
    return max(_CELLS // group.members.size, 1)


def finish_voxelwise(sums: VoxelwiseSums, group: int, voxels: slice) -> VoxelwiseMaps:
    """Return the estimates of a group's targets in a range of voxels (NaN where `deferred`)."""
    design, chosen = sums.design, sums.design.groups[group]
    moments = _moments(sums, group, voxels)
    tolerance = _ROUNDING[design.precision]
    shift, left = np.nan_to_num(sums.shift[voxels]), moments.syy
    if not chosen.intercept:
        with np.errstate(invalid="ignore", divide="ignore"):
            shift = np.nan_to_num(moments.sxy[0] / moments.n)
            left = moments.syy - moments.sxy[0] ** 2 / moments.sxx[0]
    # What is left of equal values of single precision is rounding, not variance.
    flat = ~(left > np.maximum(tolerance * sums.squares[group, voxels], moments.n * (2.0 * _SINGLE_EPS * shift) ** 2))
    df = moments.n - moments.rank - 1.0
    enough = (moments.n >= max(design.min_share * chosen.n, design.min_people)) & (df >= 1)
    usable = enough & ~flat & ~sums.deferred[voxels]
    ok = usable & (moments.sxx > _NO_SPREAD * chosen.n)
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.clip(moments.sxy / np.sqrt(moments.sxx * moments.syy), -MAX_R, MAX_R)
        t = r * np.sqrt(df / (1.0 - r * r))
        beta = moments.sxy / moments.sxx / chosen.scale[:, None]
        error = np.sqrt(moments.syy * (1.0 - r * r) / (df * moments.sxx)) / chosen.scale[:, None]
    beta, error, r, t = (np.where(ok, value, np.nan) for value in (beta, error, r, t))
    return VoxelwiseMaps(
        n=np.rint(moments.n).astype(np.int64),
        degrees_of_freedom=np.where(usable, df, np.nan),
        beta=beta,
        standard_error=error,
        r=r,
        t=t,
        neg_log10_p=neg_log10_p_from_t(t, np.where(ok, df, np.nan)),
    )


def _moments(sums: VoxelwiseSums, group: int, voxels: slice) -> _Moments:
    """Return what the covariates leave: for voxels that everybody has at once, for others each with its own S."""
    chosen, before = sums.design.groups[group], sums.design.groups[:group]
    first = sum(g.rank + g.members.size for g in before)
    p, q, n = chosen.rank, chosen.members.size, float(chosen.n)
    c = sums.moments[first : first + p, voxels]
    sxy = sums.moments[first + p : first + p + q, voxels].copy()
    syy = sums.squares[group, voxels] - (c**2).sum(axis=0) / n
    sxx = np.full(sxy.shape, n)
    count, rank = np.full(syy.shape, n), np.full(syy.shape, float(p))
    slots = sums.slot[voxels]
    lacking = np.flatnonzero(slots >= 0)
    if not lacking.size:
        return _Moments(sxx, sxy, syy, count, rank)
    column = sum(_n_products(g) for g in before)
    absent = sums.absent[slots[lacking], column : column + _n_products(chosen)]
    upper = p * (p + 1) // 2
    above, beside = np.triu_indices(p)
    gram = np.empty((lacking.size, p, p))
    gram[:, above, beside] = gram[:, beside, above] = -absent[:, :upper]
    gram[:, np.arange(p), np.arange(p)] += n
    crossed = absent[:, upper:].reshape(lacking.size, q, p + 1)
    u = -crossed[:, :, :p]
    inverse_root, ranks = _inverse_roots(gram, n)
    turned_u = u @ inverse_root
    turned_c = (c[:, lacking].T[:, None, :] @ inverse_root)[:, 0, :]
    sxx[:, lacking] = (n - crossed[:, :, p] - (turned_u**2).sum(axis=2)).T
    sxy[:, lacking] -= (turned_u @ turned_c[:, :, None])[:, :, 0].T
    syy[lacking] = sums.squares[group, voxels][lacking] - (turned_c**2).sum(axis=1)
    # The intercept's square is 1, in the basis or as the target.
    count[lacking] = n - (absent[:, 0] if chosen.intercept else crossed[:, 0, p])
    rank[lacking] = ranks
    return _Moments(sxx, sxy, syy, count, rank)


def _inverse_roots(
    gram: Float64[np.ndarray, "voxels rank rank"], n: float
) -> tuple[Float64[np.ndarray, "voxels rank rank"], Int[np.ndarray, " voxels"]]:
    """Return W with W W' = S^+ for every S = n I - D, and the ranks.

    Where the absent are few, trace(D) < n / 2, no eigenvalue of S is below n / 2 and Cholesky's root does.
    """
    roots, ranks = np.empty(gram.shape), np.full(gram.shape[0], gram.shape[1])
    sound = gram.shape[1] * n - np.trace(gram, axis1=1, axis2=2) < n / 2.0
    roots[sound] = np.linalg.inv(np.linalg.cholesky(gram[sound])).transpose(0, 2, 1)
    values, vectors = np.linalg.eigh(gram[~sound])
    large = values > _SINGULAR * n
    roots[~sound] = vectors * (np.where(large, 1.0 / np.sqrt(np.where(large, values, 1.0)), 0.0))[:, None, :]
    ranks[~sound] = large.sum(axis=1)
    return roots, ranks
