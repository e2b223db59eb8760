"""Registration by the real ANTs where it is installed, and the message where it is not."""

import sys

import numpy as np
import pytest

from brainlocus.core import AffineTransform, Grid, MissingExtraError, Volume
from brainlocus.core.transforms import DisplacementField
from brainlocus.numerics.resample import map_points, resample_map
from brainlocus.pipeline.registration import register


def template(name: str) -> Volume:
    """Return a map of the ICBM 2009 template that ships with nilearn, 2 mm."""
    datasets = pytest.importorskip("nilearn.datasets")
    image = getattr(datasets, f"load_mni152_{name}")(resolution=2)
    return Volume(np.asarray(image.dataobj, dtype=np.float32), np.asarray(image.affine, dtype=np.float64), name)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["rigid", "affine", "syn"])
def test_a_known_turn_is_found_within_half_a_millimetre(kind):
    pytest.importorskip("ants", reason="antspyx is not installed: pip install 'brainlocus[registration]'")
    c, s = np.cos(np.radians(9.0)), np.sin(np.radians(9.0))
    truth = AffineTransform(np.array([[c, -s, 0, 5.0], [s, c, 0, -7.0], [0, 0, 1, 4.0], [0, 0, 0, 1.0]]))
    fixed = template("template")
    other = template("gm_template")
    white = template("wm_template").data
    # A field has so many parameters that only structure ties it down: the same contrast, as between T1 and template.
    brain = fixed if kind == "syn" else Volume(3.0 * other.data + 1.0 * white, other.affine, "another contrast")
    affine = np.diag([-2.2, 2.2, 2.4, 1.0])
    affine[:3, 3] = [104, -138, -82]
    inverse = AffineTransform(np.linalg.inv(truth.matrix))
    moving = resample_map(brain, Grid((94, 112, 84), affine), (inverse,), fill=0.0)
    chain = register(fixed, moving, kind=kind)
    index = np.argwhere(other.data + white > 0.9)[::997].T
    points = other.affine[:3, :3] @ index + other.affine[:3, 3:]
    error = np.linalg.norm(map_points(points, chain) - map_points(points, (truth,)), axis=0)
    assert any(isinstance(t, DisplacementField) for t in chain) == (kind == "syn")
    assert np.median(error) < 0.5, error


def test_without_ants_the_message_says_which_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ants", None)
    volume = Volume(np.ones((4, 4, 4), dtype=np.float32), np.eye(4), "magnitude")
    with pytest.raises(MissingExtraError, match=r"brainlocus\[registration\]"):
        register(volume, volume)
