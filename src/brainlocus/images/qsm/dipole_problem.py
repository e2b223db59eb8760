"""What every dipole inversion starts from: the field cropped to its mask, in a padded box, and the kernel D on it.

Data flow::

    local field, mask, geometry --prepare_dipole_problem--> DipoleProblem --invert_<method>--> Solution
                                                                          --restore--> map on the whole grid

The field is only known inside the mask, so the box is the mask's bounding box and a margin (`padding_mm`) that parts
the head from its periodic copies; a UK Biobank head then takes half of the voxels of its matrix.

Arrays live where `namespace` and `device` say: NumPy arrays with transforms by `scipy.fft`, or those of an array-API
namespace.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.core.errors import AlignmentError
from brainlocus.numerics.cropping import bounding_box
from brainlocus.numerics.dipole import dipole_kernel
from brainlocus.numerics.fourier import FourierBox

__all__ = ["DipoleProblem", "Solution", "prepare_dipole_problem"]

UNIT_TOLERANCE = 1e-3
"""Largest departure of the length of `b0_direction` from 1."""


@dataclass(frozen=True, slots=True, eq=False)
class DipoleProblem:
    """One field to invert. Images are of the box's padded shape, zero outside the mask."""

    box: FourierBox
    """Half spectra of the box, in `namespace` if there is one."""
    region: tuple[slice, slice, slice]
    """Where the box's image lies on the whole grid."""
    grid_shape: tuple[int, int, int]
    field_ppm: Any
    """float32."""
    mask: Bool[np.ndarray, "x y z"]
    """Always on the host, of the box's shape without padding."""
    inside: Any
    """The mask, padded, as 0 and 1 in float32."""
    weight: Any
    """Squared weights of the fidelity, float32: mean 1 inside the mask, 0 outside; 0 and 1 where none were given."""
    weighted: bool
    """Whether weights were given."""
    magnitude: Float32[np.ndarray, "x y z"] | None
    """Always on the host, of the box's shape without padding."""
    kernel: Any
    """D on the half spectrum, float32."""
    namespace: Any = None
    """Array-API namespace, or None: NumPy."""
    device: Any = None
    """What the namespace calls the device."""

    def put(self, values: np.ndarray) -> Any:
        """Return a host array where this problem's arrays live."""
        values = np.ascontiguousarray(values)
        return values if self.namespace is None else self.namespace.asarray(values, device=self.device)

    def put_image(self, image: np.ndarray) -> Any:
        """Return a host image of the box's shape, padded, where this problem's arrays live."""
        padded = np.zeros(self.box.padded, dtype=np.float32)
        x, y, z = self.box.shape
        padded[:x, :y, :z] = image
        return self.put(padded)

    def get(self, values: Any) -> np.ndarray:
        """Return an array of this problem on the host."""
        if hasattr(values, "get"):  # CuPy
            values = values.get()
        elif hasattr(values, "cpu"):  # PyTorch
            values = values.cpu().numpy()
        return np.asarray(values)

    def get_image(self, image: Any) -> Float32[np.ndarray, "x y z"]:
        """Return the box's part of a padded image on the host."""
        return np.asarray(self.box.crop(self.get(image)))

    def restore(self, image: Float32[np.ndarray, "box_x box_y box_z"]) -> Float32[np.ndarray, "x y z"]:
        """Return a padded host image on the whole grid, 0 outside the mask."""
        whole = np.zeros(self.grid_shape, dtype=np.float32)
        whole[self.region] = np.where(self.mask, self.box.crop(image), np.float32(0))
        return whole


@dataclass(frozen=True, slots=True, eq=False)
class Solution:
    """What a method returns, in the problem's box."""

    chi_ppm: Float32[np.ndarray, "x y z"]
    """Susceptibility of the whole padded box; outside the mask it may hold the sources of what is left of background
    fields."""
    n_iterations: int
    """Of the last iterative step; 0 for closed forms."""
    converged: bool
    """Whether the stopping rule was met before the largest number of iterations."""
    change: float
    """What the stopping rule looked at last: relative change of chi, or relative residual of the normal equations."""


def prepare_dipole_problem(
    local_field_ppm: Float[np.ndarray, "x y z"],
    mask: Bool[np.ndarray, "mask_x mask_y mask_z"],
    voxel_size_mm: Sequence[float],
    b0_direction: Sequence[float],
    *,
    padding_mm: float = 20.0,
    weight: Float[np.ndarray, "weight_x weight_y weight_z"] | None = None,
    magnitude: Float[np.ndarray, "magnitude_x magnitude_y magnitude_z"] | None = None,
    workers: int = 1,
    namespace: Any = None,
    device: Any = None,
) -> DipoleProblem:
    """Return the field, mask and kernel in a box around the mask.

    Parameters
    ----------
    local_field_ppm
        Finite inside the mask; what lies outside is not looked at.
    b0_direction
        Unit vector along the voxel axes.
    padding_mm
        Least distance between the mask and its periodic copies. The field of a head of 1,300 cm³ whose mean
        susceptibility is off by 0.005 ppm is 0.1 ppb at 20 mm from its copy.
    weight
        Reliability of the field, proportional to 1 / sd of its noise (for example the magnitude); at least 0. It is
        scaled to mean square 1 inside the mask, so that a regularisation keeps its meaning.
    magnitude
        Image whose edges a method may use.
    namespace, device
        Array-API namespace (CuPy, PyTorch through array-api-compat) and its device; None: NumPy.

    Raises
    ------
    AlignmentError
        Mask, weight or magnitude have another shape than the field.
    ValueError
        Empty mask, a field or weight that is not finite inside the mask, negative or all-zero weights, voxel sizes
        that are not above 0, or a direction that is not of length 1.
    """
    shape = local_field_ppm.shape
    for name, image in (("mask", mask), ("weight", weight), ("magnitude", magnitude)):
        if image is not None and image.shape != shape:
            raise AlignmentError(
                f"The {name} has shape {image.shape}, the local field {shape}. Resample it to the field's grid first."
            )
    sizes = _checked_sizes(voxel_size_mm)
    direction = _checked_direction(b0_direction)
    if not mask.any():
        raise ValueError("The mask of the dipole inversion is empty: there is no field to invert. Look at the masks.")
    region = bounding_box(mask)
    cropped = np.ascontiguousarray(mask[region])
    field = _masked(local_field_ppm[region], cropped, "local field")
    box = FourierBox.around(cropped.shape, sizes, padding_mm, workers=workers, namespace=namespace)
    squared = cropped.astype(np.float32) if weight is None else _squared_weight(weight[region], cropped)
    edges = None if magnitude is None else _masked(magnitude[region], cropped, "magnitude")
    bare = DipoleProblem(
        box, region, (shape[0], shape[1], shape[2]), None, cropped, None, None, weight is not None, edges, None,
        namespace, device,
    )  # fmt: skip
    return replace(
        bare,
        field_ppm=bare.put_image(field),
        inside=bare.put_image(cropped),
        weight=bare.put_image(squared),
        kernel=bare.put(dipole_kernel(box, direction)),
    )


def _checked_sizes(voxel_size_mm: Sequence[float]) -> tuple[float, float, float]:
    sizes = np.asarray(voxel_size_mm, dtype=float)
    if sizes.shape != (3,) or not (np.isfinite(sizes).all() and (sizes > 0).all()):
        raise ValueError(f"Expected three voxel sizes above 0 mm, found {list(voxel_size_mm)}; correct the header.")
    return float(sizes[0]), float(sizes[1]), float(sizes[2])


def _checked_direction(b0_direction: Sequence[float]) -> tuple[float, float, float]:
    direction = np.asarray(b0_direction, dtype=float)
    if direction.shape != (3,) or not abs(float(np.linalg.norm(direction)) - 1.0) <= UNIT_TOLERANCE:
        raise ValueError(f"Expected the main field's unit vector along the voxel axes, found {list(b0_direction)}.")
    direction = direction / np.linalg.norm(direction)
    return float(direction[0]), float(direction[1]), float(direction[2])


def _masked(
    image: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], name: str
) -> Float32[np.ndarray, "x y z"]:
    values = np.where(mask, image, 0.0).astype(np.float32)
    bad = int(np.count_nonzero(~np.isfinite(values)))
    if bad:
        raise ValueError(f"The {name} is not finite in {bad} voxels of the mask; take these voxels out of the mask.")
    return values


def _squared_weight(
    weight: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"]
) -> Float32[np.ndarray, "x y z"]:
    values = _masked(weight, mask, "weight")
    if (values < 0).any():
        raise ValueError(f"Expected weights of at least 0, found {float(values.min()):g} inside the mask.")
    squared = values.astype(np.float64) ** 2
    mean = float(squared.sum()) / int(np.count_nonzero(mask))
    if mean == 0:
        raise ValueError("All weights inside the mask are 0: no voxel of the field counts. Look at the weights.")
    return (squared / mean).astype(np.float32)
