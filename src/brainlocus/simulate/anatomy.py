"""Tissues of a simulated head: what lies where, with its susceptibility, relaxation and proton density.

The brain is the ICBM 2009 average of 152 people (T1, grey and white matter; Fonov et al. 2011) that ships inside
nilearn. Cerebrospinal fluid is what of the brain is neither grey nor white. Deep nuclei are ellipsoids in MNI
millimetres, veins are tubes drawn at random; a skull, a scalp, a neck and air cavities surround the brain. Edges are
soft over one voxel.

Susceptibilities and relaxation rates follow Marques et al. (2021); shapes, densities and cavities are our choice.

References
----------
Fonov et al. (2011), NeuroImage 54:313; Marques et al. (2021), Magn Reson Med 86:526.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, UInt8
from scipy import ndimage
from scipy.spatial import cKDTree

from brainlocus.core.errors import import_extra

__all__ = ["CALCIFICATION", "LABEL_NAMES", "NUCLEI", "Anatomy", "Ellipsoid", "Tissue", "build_anatomy"]


@dataclass(frozen=True, slots=True)
class Tissue:
    """What the scanner sees of a tissue."""

    chi_ppm: float
    """Against water."""
    r2star: float
    """1/s, at 3 T."""
    density: float
    """Signal at echo time 0, arbitrary unit."""


@dataclass(frozen=True, slots=True)
class Ellipsoid:
    """A nucleus; `centre_mm` is the right one where there are two."""

    name: str
    centre_mm: tuple[float, float, float]
    radii_mm: tuple[float, float, float]
    tissue: Tissue


GREY = Tissue(0.020, 17.0, 0.80)
WHITE = Tissue(-0.030, 20.0, 0.70)
CSF = Tissue(0.019, 4.0, 1.00)
VEIN = Tissue(0.19, 35.0, 0.80)
BONE = Tissue(-2.1, 200.0, 0.02)
AIR = Tissue(9.2, 0.0, 0.0)
MUSCLE = Tissue(0.0, 30.0, 0.70)
FAT = Tissue(0.019, 30.0, 0.90)

# Painted in this order: small nuclei over their larger neighbours.
NUCLEI = (
    Ellipsoid("thalamus", (12.0, -18.0, 8.0), (8.0, 12.0, 8.0), Tissue(0.020, 21.0, 0.75)),
    Ellipsoid("putamen", (27.0, 4.0, 2.0), (5.0, 14.0, 9.0), Tissue(0.038, 27.0, 0.78)),
    Ellipsoid("caudate", (12.0, 13.0, 9.0), (5.0, 9.0, 9.0), Tissue(0.044, 25.0, 0.78)),
    Ellipsoid("hippocampus", (28.0, -22.0, -14.0), (6.0, 14.0, 5.0), Tissue(0.015, 18.0, 0.80)),
    Ellipsoid("amygdala", (23.0, -4.0, -18.0), (6.0, 6.0, 6.0), Tissue(0.012, 18.0, 0.80)),
    Ellipsoid("pallidum", (19.0, -3.0, 0.0), (4.0, 8.0, 6.0), Tissue(0.131, 38.0, 0.72)),
    Ellipsoid("accumbens", (10.0, 12.0, -7.0), (4.0, 5.0, 4.0), Tissue(0.030, 22.0, 0.78)),
    Ellipsoid("dentate", (15.0, -57.0, -34.0), (7.0, 5.0, 6.0), Tissue(0.152, 33.0, 0.72)),
    Ellipsoid("substantia_nigra", (10.0, -16.0, -11.0), (4.0, 6.0, 3.5), Tissue(0.111, 36.0, 0.72)),
    Ellipsoid("red_nucleus", (5.0, -20.0, -8.0), (3.5, 3.5, 4.0), Tissue(0.100, 35.0, 0.72)),
)
CALCIFICATION = Ellipsoid("calcification", (28.0, -42.0, 28.0), (3.0, 3.0, 3.0), Tissue(-3.0, 80.0, 0.30))

_TISSUE_NAMES = ("grey_matter", "white_matter", "csf", "lateral_ventricles", "veins", "calcification")
_NUCLEUS_NAMES = tuple(f"{side}_{nucleus.name}" for nucleus in NUCLEI for side in ("left", "right"))
LABEL_NAMES: dict[int, str] = dict(enumerate(_TISSUE_NAMES + _NUCLEUS_NAMES, start=1))
"""Label to name: tissues, then the nuclei of each side (left is x < 0)."""
_LABEL = {name: label for label, name in LABEL_NAMES.items()}

# Distance from the brain in mm at which each shell ends; beyond the scalp lies air.
FLUID_MM, BONE_MM, SCALP_MM = 3.0, 8.0, 14.0
NECK_MM = ((-55.0, 55.0), (-95.0, 65.0), (-1000.0, -45.0))
"""Block of muscle that carries the head (x, y, z from and to); it starts inside the scalp and has no lower end."""
CAVITIES = (  # frontal and ethmoid sinuses, and the ears; both sides
    ((10.0, 60.0, -30.0), (8.0, 18.0, 10.0)),
    ((48.0, -28.0, -42.0), (9.0, 9.0, 9.0)),
)
VENTRICLE_BOX_MM = ((-32.0, 32.0), (-52.0, 38.0), (-4.0, 34.0))
"""The largest connected fluid in this box is the lateral ventricles: sulci and the fourth ventricle lie beyond."""
TEXTURE_MM = 2.0
"""Standard deviation of the Gaussian below which T1 contrast counts as texture."""
TEXTURE_PPM = 0.004
"""Root mean square of the texture outside the nuclei."""
TEXTURE_SHARE = 0.10
"""Largest relative texture inside the nuclei."""
N_VEINS = 24
VEIN_RADIUS_MM = (0.7, 1.4)


@dataclass(frozen=True, slots=True, eq=False)
class Anatomy:
    """Tissue properties on one grid."""

    chi_ppm: Float32[np.ndarray, "x y z"]
    """The whole head against water; air is 9.2."""
    r2star: Float32[np.ndarray, "x y z"]
    density: Float32[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    labels: UInt8[np.ndarray, "x y z"]
    """See `LABEL_NAMES`; 0 outside the brain."""


@dataclass(frozen=True, slots=True, eq=False)
class _Template:
    """Maps at 1 mm and their affine; `distance` has its own, coarser grid."""

    grey: Float32[np.ndarray, "x y z"]
    white: Float32[np.ndarray, "x y z"]
    brain: Float32[np.ndarray, "x y z"]
    ventricles: Float32[np.ndarray, "x y z"]
    texture: Float32[np.ndarray, "x y z"]
    """Root mean square 1 in the brain, 0 outside."""
    affine: Float[np.ndarray, "4 4"]
    distance_mm: Float32[np.ndarray, "u v w"]
    distance_affine: Float[np.ndarray, "4 4"]


def build_anatomy(
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    rng: np.random.Generator,
    *,
    calcification: bool = False,
    spread: float = 0.0,
) -> Anatomy:
    """Return the head on a grid of MNI millimetres.

    Parameters
    ----------
    rng
        Draws the veins, and then one susceptibility factor for each nucleus; the anatomy itself is always the same.
    calcification
        Put a sphere of radius 3 mm and -3 ppm into the right parietal white matter.
    spread
        Standard deviation between people of a nucleus' susceptibility and relaxation rate, as a share of its value.

    Raises
    ------
    MissingExtraError
        nilearn is not installed.
    """
    template = _load_template()
    canvas = _Canvas.of(template, shape, affine)
    tubes = _draw_veins(template, rng)
    for nucleus in NUCLEI:
        factor = 1 + spread * float(rng.standard_normal())
        for side in (-1.0, 1.0):
            name = f"{'left' if side < 0 else 'right'}_{nucleus.name}"
            x, y, z = nucleus.centre_mm
            tissue = Tissue(nucleus.tissue.chi_ppm * factor, nucleus.tissue.r2star * factor, nucleus.tissue.density)
            canvas.paint_ellipsoid((side * x, y, z), nucleus.radii_mm, tissue, _LABEL[name], TEXTURE_SHARE)
    for points, radius in tubes:
        canvas.paint_tube(points, radius, VEIN, _LABEL["veins"])
    if calcification:
        sphere = CALCIFICATION
        canvas.paint_ellipsoid(sphere.centre_mm, sphere.radii_mm, sphere.tissue, _LABEL["calcification"], 0.0)
    canvas.surround(template)
    return Anatomy(canvas.chi, canvas.r2star, canvas.density, canvas.brain, canvas.labels)


@lru_cache(maxsize=1)
def _load_template() -> _Template:
    """Return the template cut to the brain; 80 MB are kept, which saves most of the time of a coarse head."""
    datasets: Any = import_extra("nilearn.datasets", extra="imaging")
    image = datasets.load_mni152_template(resolution=1)
    t1 = np.asarray(image.dataobj, dtype=np.float32)
    affine = np.asarray(image.affine, dtype=np.float64)
    grey, white = (
        np.asarray(load(resolution=1).dataobj, dtype=np.float32)
        for load in (datasets.load_mni152_gm_template, datasets.load_mni152_wm_template)
    )
    brain = np.asarray(datasets.load_mni152_brain_mask(resolution=1).dataobj) > 0
    scale = float(max(grey.max(), white.max(), (grey + white).max()))
    grey, white, t1 = grey / scale, white / scale, t1 / t1.max()
    fluid = brain & (1 - grey - white > 0.5)
    distance, distance_affine = _distance_from(brain, affine)
    found = np.argwhere(brain)
    low, high = np.maximum(found.min(axis=0) - 2, 0), found.max(axis=0) + 3
    cut = tuple(slice(a, b) for a, b in zip(low, high, strict=True))

    def cropped(image: Float32[np.ndarray, "x y z"] | Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "u v w"]:
        return np.ascontiguousarray(image[cut], dtype=np.float32)

    cut_affine = affine.copy()
    cut_affine[:3, 3] += affine[:3, :3] @ low
    return _Template(
        cropped(grey),
        cropped(white),
        cropped(brain),
        cropped(_largest_in_box(fluid, affine)),
        cropped(_texture(t1, brain)),
        cut_affine,
        distance,
        distance_affine,
    )


def _texture(t1: Float32[np.ndarray, "x y z"], brain: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
    """Return T1 minus its average over `TEXTURE_MM` within the brain, scaled to a root mean square of 1."""
    weight = ndimage.gaussian_filter(brain.astype(np.float32), TEXTURE_MM)
    smooth = ndimage.gaussian_filter(np.where(brain, t1, np.float32(0)), TEXTURE_MM)
    rough = np.where(brain, t1 - smooth / np.maximum(weight, np.float32(1e-3)), np.float32(0))
    return np.asarray(rough / np.sqrt(np.mean(rough[brain].astype(np.float64) ** 2)), dtype=np.float32)


def _largest_in_box(fluid: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> Bool[np.ndarray, "x y z"]:
    box = _box_slices(VENTRICLE_BOX_MM, affine, fluid.shape)
    parts, _ = ndimage.label(fluid[box])
    largest = np.zeros_like(fluid)
    largest[box] = parts == 1 + int(np.argmax(np.bincount(parts.ravel())[1:]))
    return largest


def _distance_from(
    brain: Bool[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Float32[np.ndarray, "u v w"], Float[np.ndarray, "4 4"]]:
    """Return the distance to the brain in mm, on a 2 mm grid that reaches 30 mm beyond the template."""
    padded = np.pad(brain, 30)[::2, ::2, ::2]
    distance = ndimage.distance_transform_edt(~padded, sampling=2.0)
    coarse = affine @ np.block([[np.diag([2.0, 2.0, 2.0]), np.full((3, 1), -30.0)], [np.array([[0.0, 0.0, 0.0, 1.0]])]])
    return np.asarray(distance, dtype=np.float32), coarse


def _draw_veins(template: _Template, rng: np.random.Generator) -> list[tuple[Float[np.ndarray, "points 3"], float]]:
    """Return curved centre lines through the brain and their radii.

    Each is a quadratic Bezier curve whose ends lie in the brain 30 to 70 mm apart, bent by some 8 mm.
    """
    inside = np.argwhere(template.brain > 0.5)
    world = inside @ template.affine[:3, :3].T + template.affine[:3, 3]
    tubes: list[tuple[Float[np.ndarray, "points 3"], float]] = []
    while len(tubes) < N_VEINS:
        start, end = world[rng.integers(len(world), size=2)]
        if not 30.0 <= np.linalg.norm(end - start) <= 70.0:
            continue
        middle = (start + end) / 2 + rng.normal(0.0, 8.0, 3)
        t = np.linspace(0.0, 1.0, 160)[:, None]
        points = (1 - t) ** 2 * start + 2 * t * (1 - t) * middle + t**2 * end
        tubes.append((points, float(rng.uniform(*VEIN_RADIUS_MM))))
    return tubes


def _sample(
    image: Float32[np.ndarray, "u v w"],
    image_affine: Float[np.ndarray, "4 4"],
    shape: tuple[int, int, int],
    affine: Float[np.ndarray, "4 4"],
    outside: float = 0.0,
) -> Float32[np.ndarray, "x y z"]:
    """Return a map on another grid, linear between voxels."""
    step = np.linalg.inv(image_affine) @ affine
    matrix = step[:3, :3]
    if np.allclose(matrix, np.diag(np.diag(matrix)), atol=1e-12):
        matrix = np.diag(matrix)
    return np.asarray(
        ndimage.affine_transform(
            image, matrix, offset=step[:3, 3], output_shape=shape, output=np.float32, order=1, cval=outside
        )
    )


def _box_slices(
    box_mm: tuple[tuple[float, float], ...], affine: Float[np.ndarray, "4 4"], shape: tuple[int, ...]
) -> tuple[slice, ...]:
    """Return the smallest block of voxels that holds a box of world coordinates, cut to the image."""
    corners = np.stack(np.meshgrid(*box_mm, indexing="ij"), axis=-1).reshape(-1, 3)
    inverse = np.linalg.inv(affine)
    voxels = corners @ inverse[:3, :3].T + inverse[:3, 3]
    low = np.maximum(np.floor(voxels.min(axis=0)).astype(int), 0)
    high = np.minimum(np.ceil(voxels.max(axis=0)).astype(int) + 1, shape)
    return tuple(slice(a, max(a, b)) for a, b in zip(low, high, strict=True))


@dataclass(slots=True, eq=False)
class _Canvas:
    """The maps while they are painted."""

    chi: Float32[np.ndarray, "x y z"]
    r2star: Float32[np.ndarray, "x y z"]
    density: Float32[np.ndarray, "x y z"]
    brain: Bool[np.ndarray, "x y z"]
    labels: UInt8[np.ndarray, "x y z"]
    texture: Float32[np.ndarray, "x y z"]
    affine: Float[np.ndarray, "4 4"]
    edge_mm: float
    """Width of soft edges: the longest voxel edge."""

    @classmethod
    def of(cls, template: _Template, shape: tuple[int, int, int], affine: Float[np.ndarray, "4 4"]) -> "_Canvas":
        """Return the brain without nuclei; everything else is 0."""
        brain = _sample(template.brain, template.affine, shape, affine) > 0.5
        white = _sample(template.white, template.affine, shape, affine) * brain
        grey = np.minimum(_sample(template.grey, template.affine, shape, affine) * brain, 1 - white)
        fluid = brain - grey - white
        texture = _sample(template.texture, template.affine, shape, affine) * brain
        maps = [
            np.asarray(grey * g + white * w + fluid * c, dtype=np.float32)
            for g, w, c in (
                (GREY.chi_ppm, WHITE.chi_ppm, CSF.chi_ppm),
                (GREY.r2star, WHITE.r2star, CSF.r2star),
                (GREY.density, WHITE.density, CSF.density),
            )
        ]
        maps[0] += np.float32(TEXTURE_PPM) * texture * (grey + white)
        labels = np.where(brain, _LABEL["csf"], 0).astype(np.uint8)
        labels[brain & (grey >= np.maximum(white, fluid))] = _LABEL["grey_matter"]
        labels[brain & (white > np.maximum(grey, fluid))] = _LABEL["white_matter"]
        ventricles = _sample(template.ventricles, template.affine, shape, affine) > 0.5
        labels[brain & ventricles & (fluid > 0.5)] = _LABEL["lateral_ventricles"]
        edge = float(np.linalg.norm(affine[:3, :3], axis=0).max())
        return cls(maps[0], maps[1], maps[2], brain, labels, texture, affine, edge)

    def paint_ellipsoid(
        self,
        centre_mm: tuple[float, float, float],
        radii_mm: tuple[float, float, float],
        tissue: Tissue,
        label: int,
        texture: float,
    ) -> None:
        """Paint a nucleus into the brain."""
        box, inside = self._ellipsoid(centre_mm, radii_mm)
        self._blend(box, inside * self.brain[box], tissue, label, texture)

    def paint_tube(
        self, points_mm: Float[np.ndarray, "points 3"], radius_mm: float, tissue: Tissue, label: int
    ) -> None:
        """Paint a vein into the brain."""
        reach = radius_mm + self.edge_mm
        low, high = points_mm.min(axis=0) - reach, points_mm.max(axis=0) + reach
        box = self._box([(float(a), float(b)) for a, b in zip(low, high, strict=True)])
        world = np.stack(np.broadcast_arrays(*self._world(box)), axis=-1)
        distance, _ = cKDTree(points_mm).query(world.reshape(-1, 3), distance_upper_bound=reach)
        depth = radius_mm - np.asarray(distance).reshape(world.shape[:3])
        inside = np.clip(0.5 + depth / self.edge_mm, 0, 1)
        self._blend(box, inside * self.brain[box], tissue, label, 0.0)

    def surround(self, template: _Template) -> None:
        """Put fluid, bone, scalp, neck and cavities around the brain, and air around them."""
        shape = self.chi.shape
        far = float(template.distance_mm.max())
        distance = _sample(template.distance_mm, template.distance_affine, shape, self.affine, far)
        outer = [np.full(shape, value, dtype=np.float32) for value in (AIR.chi_ppm, AIR.r2star, AIR.density)]
        everywhere = (slice(None), slice(None), slice(None))
        neck = np.ones((1, 1, 1))
        for world, (low, high) in zip(self._world(everywhere), NECK_MM, strict=True):
            neck = neck * np.clip(0.5 + np.minimum(world - low, high - world) / self.edge_mm, 0, 1)
        _mix(outer, np.asarray(neck, dtype=np.float32), MUSCLE)
        for end, tissue in ((SCALP_MM, FAT), (BONE_MM, BONE), (FLUID_MM, CSF)):
            _mix(outer, np.clip(0.5 + (end - distance) / self.edge_mm, 0, 1), tissue)
        for (x, y, z), radii in CAVITIES:
            for side in (-1.0, 1.0):
                box, inside = self._ellipsoid((side * x, y, z), radii)
                _mix([part[box] for part in outer], inside, AIR)
        for own, part in zip((self.chi, self.r2star, self.density), outer, strict=True):
            np.copyto(own, part, where=~self.brain)

    def _ellipsoid(
        self, centre_mm: tuple[float, float, float], radii_mm: tuple[float, float, float]
    ) -> tuple[tuple[slice, ...], Float32[np.ndarray, "u v w"]]:
        """Return the block around an ellipsoid and the share of each voxel inside.

        The distance to the surface is (1 - rho) / |grad rho|, rho the scaled radius: first order, exact at the surface.
        """
        box = self._box(
            [(c - r - self.edge_mm, c + r + self.edge_mm) for c, r in zip(centre_mm, radii_mm, strict=True)]
        )
        scaled = [(w - c) / r for w, c, r in zip(self._world(box), centre_mm, radii_mm, strict=True)]
        rho = np.sqrt(sum(s**2 for s in scaled))
        slope = np.sqrt(sum((s / r) ** 2 for s, r in zip(scaled, radii_mm, strict=True)))
        # At the centre the slope vanishes with rho; the floor keeps the voxel inside.
        depth = (1 - rho) * rho / np.maximum(slope, 1e-6) + np.where(rho < 0.5, self.edge_mm, 0.0)
        return box, np.asarray(np.clip(0.5 + depth / self.edge_mm, 0, 1), dtype=np.float32)

    def _box(self, box_mm: list[tuple[float, float]]) -> tuple[slice, ...]:
        return _box_slices(tuple(box_mm), self.affine, self.chi.shape)

    def _world(self, box: tuple[slice, ...]) -> list[Float[np.ndarray, "..."]]:
        """Return the x, y and z in mm of a block's voxels, ready to broadcast."""
        ranges = [np.arange(n, dtype=np.float64)[part] for n, part in zip(self.chi.shape, box, strict=True)]
        i, j, k = np.ix_(*ranges)
        a = self.affine
        return [
            # A zero coefficient keeps the axis short: upright grids stay one-dimensional.
            sum((a[r, c] * v for c, v in enumerate((i, j, k)) if a[r, c] != 0), np.full((1, 1, 1), a[r, 3]))
            for r in range(3)
        ]

    def _blend(
        self, box: tuple[slice, ...], inside: Float[np.ndarray, "u v w"], tissue: Tissue, label: int, texture: float
    ) -> None:
        weight = np.asarray(inside, dtype=np.float32)
        value = tissue.chi_ppm * (1 + np.float32(texture) * np.clip(self.texture[box], -1, 1))
        self.chi[box] += weight * (value.astype(np.float32) - self.chi[box])
        _mix([self.r2star[box]], weight, tissue, ("r2star",))
        _mix([self.density[box]], weight, tissue, ("density",))
        chosen: Int[np.ndarray, "u v w"] = np.where(weight > 0.5, label, self.labels[box])
        self.labels[box] = chosen.astype(np.uint8)


def _mix(
    maps: list[Float32[np.ndarray, "u v w"]],
    weight: Float32[np.ndarray, "..."],
    tissue: Tissue,
    fields: tuple[str, ...] = ("chi_ppm", "r2star", "density"),
) -> None:
    """Move maps towards a tissue's values by the share of the voxel that it fills, in place."""
    for values, name in zip(maps, fields, strict=True):
        values += weight.astype(np.float32) * (np.float32(getattr(tissue, name)) - values)
