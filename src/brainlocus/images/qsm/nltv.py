"""Nonlinear total variation: total-variation inversion whose fidelity compares unit phasors.

::

    minimise over chi    sum_mask W^2 (1 - cos c (D chi - f)) / c^2 + lambda sum e |grad chi| + tau/2 sum_outside chi^2

with c the radians of a ppm at the effective echo time. For small differences it is the linear fidelity of `tv.py`; a
voxel whose field is wrong, and by whole wraps in particular, pulls less or not at all. The split of the fidelity
(`admm.py`) makes it a Newton step per voxel.

References
----------
Milovic et al. (2018), Magn Reson Med 80:814 (FANSI). Polak et al. (2020), NMR Biomed 33:e4271.
"""

from dataclasses import dataclass, field

from brainlocus.images.qsm.admm import VoxelFidelity, edge_weights, minimise_total_variation
from brainlocus.images.qsm.dipole_problem import DipoleProblem, Solution
from brainlocus.images.qsm.tv import TvSettings, plan_of

__all__ = ["NltvSettings", "invert_nltv"]


@dataclass(frozen=True, slots=True)
class NltvSettings:
    """Choices of nonlinear total variation."""

    radians_per_ppm: float = 16.05
    """c = 2 pi 42.577 B0 TE: at 3 T and 20 ms, 2 pi 127.73 x 0.020."""
    variation: TvSettings = field(default_factory=TvSettings)
    """Regularisation, stopping rule and what lies outside the mask."""

    @property
    def padding_mm(self) -> float:
        """Least distance between the mask and its periodic copies: that of `variation`."""
        return self.variation.padding_mm

    def __post_init__(self) -> None:
        if not self.radians_per_ppm > 0:
            raise ValueError(f"radians_per_ppm: expected a number above 0, found {self.radians_per_ppm}.")
        if not self.variation.masked_fidelity:
            raise ValueError("A nonlinear fidelity is a sum over the voxels of the mask: masked_fidelity must be True.")


def invert_nltv(problem: DipoleProblem, settings: NltvSettings) -> Solution:
    """Return the map of least total variation whose phasors agree with the field's."""
    edges = edge_weights(problem, settings.variation.edge_share, settings.variation.free_boundary)
    fidelity = VoxelFidelity(settings.radians_per_ppm)
    return minimise_total_variation(problem, plan_of(settings.variation), fidelity, edges)
