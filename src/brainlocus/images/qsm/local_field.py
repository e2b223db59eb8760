"""What every background removal takes and returns: a field in a mask, cropped to the mask's bounding box."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32
from scipy import ndimage

from brainlocus.numerics.cropping import bounding_box

__all__ = ["Cropped", "LocalField", "check_field", "crop_to_mask", "interior", "peel"]

STAGE = "Background-field removal"


@dataclass(frozen=True, slots=True, eq=False)
class LocalField:
    """The field of the sources inside a mask."""

    local_field_ppm: Float32[np.ndarray, "x y z"]
    """0 outside `mask`."""
    mask: Bool[np.ndarray, "x y z"]
    """Where the local field holds: never larger than the mask given, smaller where the method erodes."""
    n_iterations: int
    """Of the iterative solver; 0 for methods without one."""
    converged: bool
    """False where the solver stopped at its largest number of iterations instead of its tolerance."""


@dataclass(frozen=True, slots=True, eq=False)
class Cropped:
    """A field and its mask in the mask's bounding box, and where that lies."""

    field_ppm: Float32[np.ndarray, "x y z"]
    """0 outside the mask."""
    mask: Bool[np.ndarray, "x y z"]
    box: tuple[slice, slice, slice]
    shape: tuple[int, int, int]
    """Of the whole image."""

    def crop(self, image: Float32[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
        """Return another whole image's part in the bounding box, 0 outside the mask."""
        return np.where(self.mask, image[self.box], np.float32(0))

    def restore(
        self, local_field_ppm: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], n: int, converged: bool
    ) -> LocalField:
        """Return a result in the bounding box as one of the whole image.

        Raises
        ------
        ValueError
            The method left no voxel.
        """
        if not mask.any():
            raise ValueError(
                f"{STAGE}: no voxel of the mask is left after erosion; the mask ({int(self.mask.sum())} voxels, "
                f"bounding box {self.mask.shape}) is too thin for the radius. Take a larger mask or a smaller radius."
            )
        field = np.zeros(self.shape, dtype=np.float32)
        field[self.box] = np.where(mask, local_field_ppm, np.float32(0))
        whole = np.zeros(self.shape, dtype=bool)
        whole[self.box] = mask
        return LocalField(field, whole, n, converged)


def check_field(field_ppm: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> None:
    """Check a field and its mask.

    Raises
    ------
    ValueError
        An empty mask, or a field that is not finite inside the mask. Outside it may be anything.
    """
    if not mask.any():
        raise ValueError(f"{STAGE}: the mask is empty. Check the brain mask and the phase-reliability thresholds.")
    bad = int(np.count_nonzero(~np.isfinite(field_ppm[mask])))
    if bad:
        raise ValueError(
            f"{STAGE}: the field is not finite in {bad} voxels of the mask. Take these out of the mask first."
        )


def crop_to_mask(field_ppm: Float32[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]) -> Cropped:
    """Return a field and its mask in the mask's bounding box."""
    box = bounding_box(mask)
    inside = np.ascontiguousarray(mask[box])
    x, y, z = mask.shape
    return Cropped(np.where(inside, field_ppm[box], np.float32(0)), inside, box, (x, y, z))


def interior(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """Return the voxels whose six neighbours lie in the mask too; what lies beyond the image does not."""
    return np.asarray(ndimage.binary_erosion(mask, ndimage.generate_binary_structure(3, 1)))


def peel(mask: Bool[np.ndarray, "x y z"], n_layers: int) -> Bool[np.ndarray, "x y z"]:
    """Return a mask less so many layers of voxels (six-neighbour erosion).

    Raises
    ------
    ValueError
        A negative number of layers, or a mask of which nothing is left.
    """
    if n_layers < 0:
        raise ValueError(f"{STAGE}: expected a number of layers of at least 0, found {n_layers}.")
    peeled = mask
    for _ in range(n_layers):
        peeled = interior(peeled)
    if not peeled.any():
        raise ValueError(
            f"{STAGE}: no voxel of the mask ({int(mask.sum())} voxels, bounding box {mask.shape}) is left when "
            f"{n_layers} layers are peeled off. Take a larger mask or peel less."
        )
    return peeled
