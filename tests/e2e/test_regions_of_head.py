"""The simulated head's true susceptibility, carried to a turned anatomical scan and measured there."""

import numpy as np
import pytest

from brainlocus.core import Grid, Mask, Volume
from brainlocus.core.transforms import AffineTransform
from brainlocus.images.idp import measure_regions
from brainlocus.numerics.resample import resample_labels, resample_map, resample_mask
from brainlocus.simulate.head import simulate_head

TRUE_PPB = {"putamen": 38, "pallidum": 131, "caudate": 44, "thalamus": 20, "hippocampus": 15, "amygdala": 12}


@pytest.fixture(scope="module")
def head():
    return simulate_head("2mm")


@pytest.fixture(scope="module")
def anatomical():
    """A 1.25 mm scan of a person who has turned by 14 degrees and moved, and where its points lie in the head scan."""
    c, s = np.cos(np.radians(14.0)), np.sin(np.radians(14.0))
    to_head = AffineTransform(np.array([[c, 0, -s, 4.0], [0, 1, 0, -6.0], [s, 0, c, 3.0], [0, 0, 0, 1.0]]))
    affine = np.diag([-1.25, 1.25, 1.25, 1.0])
    affine[:3, 3] = [70, -70, -60]
    return Grid((112, 120, 88), affine), to_head


def test_regions_have_their_true_values_after_resampling(head, anatomical):
    grid, to_head = anatomical
    own = head.acquisition.grid.affine
    chi, inside = Volume(head.chi_ppm, own, "susceptibility", "ppm"), Mask(head.brain_mask, own)
    there = resample_map(chi, grid, (to_head,), inside=inside)
    labels, mask = resample_labels(head.labels, grid, (to_head,)), resample_mask(inside, grid, (to_head,))
    found = measure_regions(there, labels, mask, signed=True)
    for structure, expected in TRUE_PPB.items():
        for side in ("left", "right"):
            k = found.regions.index(f"{side}_{structure}")
            assert found.status[k] == "ok"
            assert found.median[k] == pytest.approx(expected, abs=3.0), structure
    # Labels that were not moved with the head lie elsewhere, and the strongest region shows it.
    astray = measure_regions(there, resample_labels(head.labels, grid), mask, signed=True)
    k = found.regions.index("left_pallidum")
    assert not astray.median[k] > 100.0
