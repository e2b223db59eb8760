"""Make ``golden.npz``: what scikit-image 0.26.0 (BSD-3-Clause) adds to wrapped phase, in turns of 2 pi.

Run with scikit-image and nibabel in an environment of their own::

    BRAINLOCUS_DATA=/path/to/data python make_golden.py

``skimage.restoration.unwrap_phase`` is the best-path method of Abdul-Rahman et al. (2007) in three dimensions. Stored
as int8 are its turns of the two real volumes of ``$BRAINLOCUS_DATA/qsm``.
"""

import os
from pathlib import Path

import nibabel
import numpy as np
from skimage.restoration import unwrap_phase


def turns(phase: np.ndarray) -> np.ndarray:
    added = (unwrap_phase(phase.astype(np.float64)) - phase) / (2 * np.pi)
    assert np.abs(added - np.rint(added)).max() < 1e-6
    return np.rint(added).astype(np.int8)


def main() -> None:
    root = Path(os.environ["BRAINLOCUS_DATA"]) / "qsm"
    small = np.asarray(nibabel.load(root / "romeo_small2" / "Phase.nii").dataobj.get_unscaled(), dtype=np.float64)
    image = nibabel.load(root / "mriresearchtools_small" / "Phase.nii")
    series = np.asarray(image.dataobj.get_unscaled(), dtype=np.float64)
    series = (series - series.min()) / np.ptp(series) * 2 * np.pi - np.pi
    np.savez_compressed(Path(__file__).with_name("golden.npz"), small=turns(small), series=turns(series[..., 2]))


main()
