"""Registration by ANTs (antspyx, extra ``registration``) where no transforms exist yet.

Registration is a craft of its own and stays with its programs: transforms of ANTs and FSL are read (`io.transforms`),
and here ANTs is asked to make them. What comes back is read by the same reader, and maps the fixed image's points to
the moving image's.
"""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import numpy as np

from brainlocus.core import Mask, Transform, Volume
from brainlocus.core.errors import import_extra
from brainlocus.io import read_transform, write_mask, write_volume

__all__ = ["RegistrationKind", "register"]

RegistrationKind = Literal["rigid", "affine", "syn"]
"""Six parameters (scans of one person); twelve; twelve and a diffeomorphic field (a person and a template)."""

_ANTS = {"rigid": "Rigid", "affine": "Affine", "syn": "SyN"}


def register(
    fixed: Volume,
    moving: Volume,
    *,
    kind: RegistrationKind = "rigid",
    fixed_mask: Mask | None = None,
    seed: int = 0,
) -> tuple[Transform, ...]:
    """Return the chain from points of the fixed image to points of the moving image.

    ``resample_map(moving, fixed.grid, register(fixed, moving))`` lies on the fixed image. The metric is mutual
    information, so the two may be of different contrast.

    Parameters
    ----------
    fixed, moving
        Images with head or brain; NaN counts as 0.
    fixed_mask
        Where the images are compared.
    seed
        Of ANTs' choice of points. With several threads its sums differ in the last digits from run to run, and its
        transforms by some micrometres.

    Raises
    ------
    MissingExtraError
        antspyx is not installed.

    References
    ----------
    Avants et al. (2011), NeuroImage 54:2033; Avants et al. (2008), Med Image Anal 12:26.
    """
    ants = import_extra("ants", extra="registration")
    with TemporaryDirectory() as name:
        folder = Path(name)
        images = []
        for what, volume in (("fixed", fixed), ("moving", moving)):
            clean = Volume(np.nan_to_num(volume.data).astype(np.float32), volume.affine, volume.quantity)
            write_volume(clean, folder / f"{what}.nii.gz")
            images.append(ants.image_read(str(folder / f"{what}.nii.gz")))
        mask = None
        if fixed_mask is not None:
            write_mask(fixed_mask, folder / "mask.nii.gz")
            mask = ants.image_read(str(folder / "mask.nii.gz"))
        found = ants.registration(
            *images, type_of_transform=_ANTS[kind], outprefix=str(folder / "found_"), random_seed=seed + 1, mask=mask
        )
        return _read([Path(path) for path in found["fwdtransforms"]])


def _read(paths: Sequence[Path]) -> tuple[Transform, ...]:
    """Return ANTs' list as a chain: both apply the last of ANTs' stack, which it lists first, to the fixed points."""
    return tuple(transform for path in paths for transform in read_transform(path))
