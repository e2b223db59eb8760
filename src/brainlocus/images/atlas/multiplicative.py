r"""Orthogonal projective non-negative factorisation by multiplicative updates (opNMF), all images at once.

Problem: ``min ||X - W W'X||_F^2`` over ``W >= 0`` with ``W'W = I``. An iteration ::

    Q = X'W;  N = X Q;  A = Q'Q
    W <- max(W * N / (W A), 1e-16);   W <- W / ||W||_2

Data flow::

    X --NNDSVD or seeds--> W --update_pass, X read once an iteration--> W --finish_soft--> SoftFit

Where there are fewer voxels than people, iterations run on the root of ``X X'`` instead of on X (see `compress`).

The loss is not guaranteed to fall in every iteration. A small change of W alone does not mean that the fit
has ended: on plateaus the change is small for thousands of iterations while components are still alike. A fit counts as
converged when W changes by less than the tolerance, the loss has fallen by less than 1e-5 of itself in 50
iterations, and the mean cosine of two components is below 0.1.

References
----------
Yang & Oja (2010), IEEE Trans. Neural Netw. 21:734; Sotiras, Resnick & Davatzikos (2015), NeuroImage 108:1.
"""

from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from brainlocus.images.atlas.active import ActiveSet, iterate_active
from brainlocus.images.atlas.blocks import checked_norms
from brainlocus.images.atlas.compress import compressed, gram_root, has_gram_root
from brainlocus.images.atlas.fit_step import FitStep, Report, unheard
from brainlocus.images.atlas.iterations import MuOptions, iterate
from brainlocus.images.atlas.passes import UPDATE_BYTES, Blocks
from brainlocus.images.atlas.soft import SoftFit, finish_soft
from brainlocus.images.atlas.starts import EXACT_SVD, nndsvd_start, seeded_start
from brainlocus.numerics.devices import HOST, Device

__all__ = ["blocks_for_updates", "fit_mu", "fit_mu_peak_bytes", "initial_weights"]


def fit_mu_peak_bytes(n_voxels: int, n_samples: int, n_components: int) -> int:
    """Return the most memory `fit_mu` needs besides X itself (which may be a memory map).

    W; the Gram matrix of the start with its eigenvectors, or the sample of voxels for seeds; where voxels are few, the
    root of ``X X'`` and W in float64; the sums; a block with its products in float64.
    """
    smaller = min(n_voxels, n_samples)
    gram = 3 * 8 * smaller**2 if smaller <= EXACT_SVD else 4 * 8 * n_samples * (n_components + 20)
    wide = 2 * 8 * n_voxels * n_samples if n_voxels < n_samples <= EXACT_SVD else 0
    root = 8 * n_voxels * (n_voxels + n_components) if has_gram_root(n_voxels, n_samples) else 0
    rows = min(n_voxels, max(256, (16 << 20) // (4 * n_samples)))
    small = min(n_voxels, max(256, UPDATE_BYTES // (4 * n_components)))
    return (
        4 * n_voxels * n_components
        + gram
        + wide
        + root
        + 6 * 8 * (n_samples + n_components) * n_components
        + 8 * rows * (3 * n_samples + 4 * n_components)
        + 8 * small * (n_samples + 4 * n_components)
        + 3 * 8 * n_voxels
    )


def fit_mu(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    *,
    generator: np.random.Generator,
    options: MuOptions | None = None,
    start: Float[np.ndarray, "voxels components"] | ActiveSet | None = None,
    device: Device = HOST,
    progress: Report = unheard,
) -> SoftFit:
    """Fit a soft atlas by opNMF.

    Parameters
    ----------
    images
        Non-negative, one row a voxel, one column a person; may be a memory map. float32, or float64 for small
        tables. Rows that are zero throughout are left out and counted.
    n_components
        Number of components: at most the number of non-zero voxels, and for the start by singular vectors fewer than
        voxels and images.
    generator
        Random numbers of the start; the same generator gives the same fit.
    start
        Weights to start from, instead of what `options` say; not changed. Zeros of a matrix stay zeros, except with
        active sets, whose entries come back inside a family; these may start sparse, too.
    device
        Where the matrix products run.
    progress
        Called with what begins: the start, each iteration, the measures of the result.

    Raises
    ------
    ValueError
        A negative, NaN or infinite value (with voxel and image), or too many components; active sets on an
        accelerator, or a sparse start without them.

    Examples
    --------
    >>> people = np.random.default_rng(0).uniform(1, 2, size=(2, 20))
    >>> images = np.repeat(people, 50, axis=0)
    >>> fit = fit_mu(images, 2, generator=np.random.default_rng(0), options=MuOptions(start="seeds"))
    >>> fit.converged, sorted(np.bincount(fit.labels)[1:].tolist()), round(fit.relative_loss, 3)
    (True, [50, 50], 0.0)
    """
    options = options or MuOptions()
    norms = checked_norms(images)
    n_present = int((norms > 0).sum())
    if n_components < 1:
        raise ValueError(f"n_components must be at least 1, got {n_components}.")
    if n_components > n_present:
        raise ValueError(f"{n_components} components were asked of {n_present} non-zero voxels; ask for fewer.")
    if options.active is not None and not device.is_host:
        raise ValueError("Active sets run on the processor only; leave them out, or use the device cpu.")
    progress(FitStep("choosing where to start"))
    weights: Any
    if start is None:
        weights = initial_weights(images, n_components, norms, generator=generator, options=options, progress=progress)
    else:
        weights = start.copy()
    if isinstance(weights, ActiveSet):
        if options.active is None:
            raise ValueError("A start of active sets needs active sets: set `active`.")
    else:
        weights[norms == 0] = 0
    if options.compress:
        progress(FitStep("compressing the images"))
        given = compressed(images, n_components, float(norms.sum()), generator=generator)
        blocks = Blocks.of(given, device, signed=True, resident=options.resident)
    else:
        blocks = blocks_for_updates(images, device, resident=options.resident)
    weights = weights.astype(blocks.images.dtype, copy=False)
    if options.active is None:
        given = device.put(weights)
        found, trace = iterate(blocks, given, float(norms.sum()), options=options, progress=progress)
    else:
        found, trace = iterate_active(blocks, weights, float(norms.sum()), options=options, progress=progress)
    final = device.get(found).astype(images.dtype, copy=False)
    progress(FitStep("measuring the fit", loss=trace.losses[-1], total=trace.total))
    return finish_soft(
        images,
        norms,
        final,
        losses=trace.losses,
        at=trace.at(),
        changes=trace.changes,
        reason=trace.reason,
        converged=trace.converged,
        warnings=trace.warnings(),
    )


def blocks_for_updates(images: Float[np.ndarray, "voxels samples"], device: Device, *, resident: bool) -> Blocks:
    """Return what exact iterations run on: the images, or float64 columns that stand in for many people."""
    if has_gram_root(*images.shape):
        return Blocks.of(gram_root(images), device, signed=True, resident=resident)
    return Blocks.of(images, device, signed=False, resident=resident)


def initial_weights(
    images: Float[np.ndarray, "voxels samples"],
    n_components: int,
    norms: Float64[np.ndarray, " voxels"],
    *,
    generator: np.random.Generator,
    options: MuOptions,
    progress: Report = unheard,
) -> Float[np.ndarray, "voxels components"]:
    """Return the weights that the options start from; seeds are told one by one.

    Raises
    ------
    ValueError
        Too many components for the start.
    """
    if options.start == "seeds":
        return seeded_start(images, n_components, norms, generator=generator, progress=progress)
    return nndsvd_start(images, n_components, generator=generator, fill=options.fill)
