"""Surfaces of the cortex: meshes of a hemisphere, and which region each vertex belongs to."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float, Int

from brainlocus.core.errors import SchemaError

__all__ = ["HEMISPHERES", "Hemisphere", "Surface", "SurfaceLabels"]

Hemisphere = Literal["lh", "rh"]
HEMISPHERES: tuple[Hemisphere, Hemisphere] = ("lh", "rh")


@dataclass(frozen=True, slots=True, eq=False)
class Surface:
    """A triangle mesh of one hemisphere.

    Raises
    ------
    SchemaError
        A face names a vertex that is not there.
    """

    vertices: Float[np.ndarray, "vertices 3"]
    """mm, RAS: right, anterior, superior."""
    faces: Int[np.ndarray, "faces 3"]

    def __post_init__(self) -> None:
        if self.faces.size and (self.faces.min() < 0 or self.faces.max() >= self.vertices.shape[0]):
            raise SchemaError(
                f"A face of the surface names vertex {self.faces.max()}, but there are {self.vertices.shape[0]}."
            )


@dataclass(frozen=True, slots=True, eq=False)
class SurfaceLabels:
    """Regions of one hemisphere, vertex by vertex."""

    code: Int[np.ndarray, " vertices"]
    names: Mapping[int, str]
    """Region of a code, with its hemisphere: ``lh_bankssts``. Codes without a name are no region (medial wall)."""
