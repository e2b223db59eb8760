"""Simulated maps of the largest atlas that was measured: ``python -m benchmarks.large_atlas FOLDER``.

4,000 NIfTI images (4.8 GB) of 75 x 80 x 50 voxels, all in the mask. Parcels are the Voronoi cells of 512 random
voxels. For person i, with standard normal g, f (one a parcel and person), noise, and a uniform template (0.3 to 1) ::

    x_i = template * (1 + 0.03 g_i + 0.08 f_(k,i) + 0.05 noise),   clipped at 0

Written: ``maps/``, ``list.txt``, ``mask.nii.gz``, the planted ``true.nii.gz``. Then, ``/usr/bin/time -v`` before it::

    brainlocus atlas fit FOLDER/list.txt --mask FOLDER/mask.nii.gz --scales 512 --solver em+mu --batch-size 500 \
      --max-epochs 40 --patience 5 --restarts 1 --executor serial --memory 6GiB --out atlas
"""

import sys
from pathlib import Path

import nibabel as nib
import numpy as np
from scipy.spatial import cKDTree

SHAPE, PEOPLE, PARCELS = (75, 80, 50), 4_000, 512


def write(folder: Path) -> None:
    """Write the images, the mask and the truth."""
    (folder / "maps").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    places = np.argwhere(np.ones(SHAPE, bool)).astype(float)
    labels = cKDTree(places[rng.choice(len(places), PARCELS, replace=False)]).query(places)[1]
    template = rng.uniform(0.3, 1.0, len(places)).astype(np.float32)
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] = (-75, -80, -50)
    nib.Nifti1Image(np.ones(SHAPE, np.uint8), affine).to_filename(folder / "mask.nii.gz")
    nib.Nifti1Image((labels + 1).reshape(SHAPE).astype(np.int16), affine).to_filename(folder / "true.nii.gz")
    names = []
    for i in range(PEOPLE):
        parts = (0.08 * rng.standard_normal(PARCELS, dtype=np.float32))[labels]
        noise = 0.05 * rng.standard_normal(len(places), dtype=np.float32)
        values = template * np.maximum(1 + 0.03 * rng.standard_normal() + parts + noise, 0)
        names.append(f"maps/sub-{i:04d}.nii")
        nib.Nifti1Image(values.reshape(SHAPE).astype(np.float32), affine).to_filename(folder / names[-1])
    (folder / "list.txt").write_text("\n".join(names) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]))
