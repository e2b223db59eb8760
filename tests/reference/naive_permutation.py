"""Freedman-Lane by refitting every permuted outcome, and TFCE height by height."""

import numpy as np
from scipy import ndimage

__all__ = ["naive_freedman_lane", "naive_tfce"]


def naive_freedman_lane(x, covariates, y, order, signs=1.0):
    """Return the t of x in the regression of Zg + SP e on x, the intercept and the covariates."""
    z = np.column_stack([np.ones(y.size), covariates])
    fit = z @ np.linalg.lstsq(z, y, rcond=None)[0]
    permuted = fit + signs * (y - fit)[order]
    design = np.column_stack([x, z])
    coefficients, _, rank, _ = np.linalg.lstsq(design, permuted, rcond=None)
    residual = permuted - design @ coefficients
    variance = residual @ residual / (y.size - rank)
    return coefficients[0] / np.sqrt(variance * np.linalg.inv(design.T @ design)[0, 0])


def naive_tfce(volume, steps=100):
    """Return the sum over heights of the root of the cluster's size times the height squared."""
    found = np.zeros(volume.shape)
    for sign in (1, -1):
        for height in np.linspace(0, np.abs(volume).max(), steps + 1)[1:]:
            clusters, _ = ndimage.label(sign * volume >= height)
            sizes = np.bincount(clusters.ravel())
            found += np.where(clusters > 0, sign * np.sqrt(sizes[clusters]) * height**2, 0.0)
    return found
