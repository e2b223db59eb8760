"""``atlas hierarchy``: which parcel of a coarse scale each parcel of the next finer scale lies in.

Written to OUT: ``hierarchy.tsv`` (a row a parcel), ``scales.tsv`` (a row a scale), ``tree.nwk``, ``tree.json`` and
``tree.png``.
"""

import json
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from brainlocus.core import ResultTable
from brainlocus.core.text import text_array
from brainlocus.images.atlas import AtlasTree, ScaleParcels, grow_tree, link_scales_peak_bytes
from brainlocus.io import atomic_path, write_results
from brainlocus.pipeline.atlas_scales import AtlasScale, read_scales
from brainlocus.pipeline.config import InputPaths, Positional, StepConfig
from brainlocus.pipeline.figures.atlas_tree import draw_tree
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["ATLAS_HIERARCHY", "AtlasHierarchyConfig"]


class AtlasHierarchyConfig(StepConfig):
    """Settings of ``atlas hierarchy``."""

    labels: Annotated[InputPaths, Positional()] = Field(
        description="A folder of atlas fit with several scales, or one label file (.nii.gz) a scale"
    )


def atlas_hierarchy(config: AtlasHierarchyConfig, out: Path, context: Context) -> StepResult:
    """Link every scale to the next coarser one."""
    scales = read_scales(config.labels, what="LABELS", least=2)
    n_voxels, (coarse, fine) = int(np.prod(scales[0].grid.shape)), (s.scale for s in scales[-2:])
    needed = link_scales_peak_bytes(n_voxels, coarse, fine) + 16 * n_voxels * len(scales)
    require_memory(needed, context.memory_bytes, f"Linking scales of {coarse} and {fine} parcels")
    inside = _labelled(scales)
    tree = grow_tree([_parcels(s, inside) for s in scales])
    volume = scales[0].grid.voxel_volume_mm3
    table = _parcel_table(tree, volume)
    write_results(table, out / "hierarchy.tsv")
    write_results(_scale_table(tree), out / "scales.tsv")
    for name, text in (("tree.nwk", tree.newick()), ("tree.json", json.dumps(tree.nested(volume), indent=1))):
        with atomic_path(out / name) as partial:
            partial.write_text(text + "\n", encoding="utf-8")
    draw_tree(tree, out / "tree.png")
    in_all = np.all([one.parcellation.labels > 0 for one in scales], axis=0)
    counts: dict[str, Any] = {
        "scales": [s.scale for s in tree.scales],
        "parcels": len(table),
        "vanished": {str(s.scale): int((tree.sizes(k) == 0).sum()) for k, s in enumerate(tree.scales)},
        "below_half": int(table["below_half"].sum()),
        "without_parent": int(sum(((link.sizes > 0) & (link.parents == 0)).sum() for link in tree.links)),
        "voxels_not_in_every_scale": int(inside.sum() - in_all.sum()),
    }
    lines = [
        f"C{link.coarse} -> C{link.fine}: containment {link.mean_containment:.3f}, adjusted Rand "
        f"{link.adjusted_rand:.3f}, {int(link.loose.sum())} of {int((link.sizes > 0).sum())} parcels below one half"
        for link in tree.links
    ]
    return StepResult(counts, summary=tuple(lines))


def _labelled(scales: list[AtlasScale]) -> Bool[np.ndarray, "x y z"]:
    inside = np.zeros(scales[0].grid.shape, dtype=bool)
    for one in scales:
        inside |= one.parcellation.labels > 0
    return inside


def _parcels(one: AtlasScale, inside: Bool[np.ndarray, "x y z"]) -> ScaleParcels:
    names = tuple(one.parcellation.names[k] for k in range(1, one.scale + 1))
    return ScaleParcels(one.scale, one.parcellation.labels[inside], names)


def _parcel_table(tree: AtlasTree, volume: float) -> ResultTable:
    """Return a row for every parcel with voxels, in the order of the tree."""
    columns: dict[str, list[Any]] = {name: [] for name in (
        "scale", "region", "n_voxels", "volume_mm3", "parent", "containment", "below_half", "n_children",
    )}  # fmt: skip
    for level, parcels in enumerate(tree.scales):
        order = tree.order(level)
        sizes = tree.sizes(level)[order - 1]
        above = tree.links[level - 1] if level else None
        below = tree.links[level] if level < len(tree.links) else None
        children = np.bincount(below.parents[below.sizes > 0], minlength=parcels.scale + 1) if below else None
        columns["scale"] += [parcels.scale] * order.size
        columns["region"] += [parcels.name(k) for k in order.tolist()]
        columns["n_voxels"] += sizes.tolist()
        columns["volume_mm3"] += np.round(sizes * volume, 6).tolist()
        parents = above.parents[order - 1].tolist() if above else [0] * order.size
        columns["parent"] += [tree.scales[level - 1].name(k) if k else "" for k in parents]
        columns["containment"] += above.containment[order - 1].tolist() if above else [np.nan] * order.size
        columns["below_half"] += above.loose[order - 1].tolist() if above else [False] * order.size
        columns["n_children"] += children[order].tolist() if children is not None else [0] * order.size
    text = {"region", "parent"}
    return ResultTable({name: text_array(v) if name in text else np.array(v) for name, v in columns.items()})


def _scale_table(tree: AtlasTree) -> ResultTable:
    sizes = [tree.sizes(level) for level in range(len(tree.scales))]
    present = [s[s > 0] for s in sizes]
    links = (None, *tree.links)
    return ResultTable(
        {
            "scale": np.array([s.scale for s in tree.scales]),
            "n_regions": np.array([p.size for p in present]),
            "n_vanished": np.array([int((s == 0).sum()) for s in sizes]),
            "n_voxels": np.array([int(s.sum()) for s in sizes]),
            "median_voxels": np.array([float(np.median(p)) for p in present]),
            "smallest_voxels": np.array([int(p.min()) for p in present]),
            "largest_voxels": np.array([int(p.max()) for p in present]),
            "coarser_scale": np.array([link.coarse if link else 0 for link in links]),
            "mean_containment": np.array([link.mean_containment if link else np.nan for link in links]),
            "adjusted_rand": np.array([link.adjusted_rand if link else np.nan for link in links]),
            "n_below_half": np.array([int(link.loose.sum()) if link else 0 for link in links]),
            "n_coarser_only": np.array([link.n_coarse_only if link else 0 for link in links]),
        }
    )


ATLAS_HIERARCHY = Step(
    "atlas hierarchy",
    "Link the parcels of each scale to those of the next coarser one.",
    AtlasHierarchyConfig,
    atlas_hierarchy,
    out="folder",
)
