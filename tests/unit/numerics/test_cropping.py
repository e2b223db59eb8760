import numpy as np
import pytest

from brainlocus.numerics.cropping import bounding_box
from brainlocus.numerics.orientation import slice_axis


@pytest.mark.parametrize("margin", [(0, 0, 0), (1, 2, 3), (9, 9, 9)])
def test_box_holds_the_mask_and_its_margin_and_no_more(margin):
    mask = np.zeros((8, 9, 10), dtype=bool)
    mask[2, 3, 4] = mask[5, 3, 6] = True
    box = bounding_box(mask, margin)
    inside = np.argwhere(mask)
    for axis, part in enumerate(box):
        assert part.start == max(0, inside[:, axis].min() - margin[axis])
        assert part.stop == min(mask.shape[axis], inside[:, axis].max() + 1 + margin[axis])
    assert mask[box].sum() == mask.sum()


def test_an_empty_mask_has_no_box():
    with pytest.raises(ValueError, match="empty"):
        bounding_box(np.zeros((3, 3, 3), dtype=bool))


@pytest.mark.parametrize(
    ("size", "axis"),
    [
        ((0.8, 0.8, 3.0), 2),
        ((3.0, 0.8, 0.8), 0),
        ((0.8, 3.0, 0.8), 1),
        ((1.0, 1.0, 1.0), 2),
        ((2.0, 2.0, 1.0), 1),
        # As headers in single precision have them, on either side of what rounding to digits would tell apart.
        ((1.0000005, 1.0, 0.9999996), 2),
        ((0.4687505, 0.46875, 0.4687495), 2),
        ((1.01, 1.0, 1.0), 0),
    ],
)
def test_slices_lie_across_the_longest_edge_the_last_of_equals(size, axis):
    assert slice_axis(size) == axis
