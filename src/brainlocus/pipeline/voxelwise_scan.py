"""Two ways through the images of ``associate voxelwise``: by image into sums, or by voxel from a store."""

from dataclasses import dataclass
from itertools import count as count_from
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int

from brainlocus.cohort.associate import (
    VoxelwiseDesign,
    VoxelwiseSums,
    add_voxelwise,
    finish_voxelwise,
    start_voxelwise,
    voxel_means,
    voxels_at_once,
    voxelwise_bytes,
)
from brainlocus.io import ImageList
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.image_voxels import READ_BYTES, gather_rows, image_tasks, read_images, save_voxels
from brainlocus.pipeline.step import Context
from brainlocus.pipeline.voxel_store import (
    ScoreTask,
    VoxelStore,
    open_or_write_store,
    read_scores,
    score_bytes,
    store_width,
)
from brainlocus.pipeline.voxelwise_maps import MAPS, Study
from brainlocus.pipeline.voxelwise_permutation import Permutations, permutations_bytes

__all__ = ["Scan", "Scanned", "scan_images"]

_BATCH = 16
"""Images of a task of reading."""
_BATCHES = (256, 128, 64, 16)
"""Images of a product, as many as the memory allows: sums are read and written once for each."""
_FEWEST_VOXELS = 4096
_WRITE_BYTES = 40
"""Bytes a voxel of the grid that writing and drawing one map, and finding its peaks, takes."""
_AROUND_BYTES = 40
"""Bytes a voxel of the mask that regions, gradients, change with age and the other side take."""
_EDGE_BYTES = 96
"""Bytes a voxel of the grid that gradients and boundaries take."""
_COUNT_BYTES = 120
"""Bytes a voxel of the mask that the maps of one target and their q-values take."""
_MANY_OUTLIERS = 0.02
_PEOPLE = 2048
"""People whose products are added at once when all people of some voxels are at hand."""


@dataclass(frozen=True, slots=True, eq=False)
class Scan:
    """What is tested: images and targets of the same people, in the order of the images."""

    images: ImageList
    maps: Study
    design: VoxelwiseDesign
    permutations: Permutations | None
    every: ImageList
    """All images that were given: values are normalised over them."""
    rows: Int[np.ndarray, " people"]
    """Where the images are among all."""
    mads: float | None
    rank: bool
    zeros: Literal["missing", "value"]
    """What values of exactly 0 are."""
    store: Path | None
    """Where the voxels of all images are kept."""
    counts: dict[str, Any]

    @property
    def scored(self) -> bool:
        """Whether all values of a voxel are needed at once."""
        return self.rank or self.mads is not None


@dataclass(frozen=True, slots=True, eq=False)
class Scanned:
    """What was read."""

    counts: dict[str, Any]
    zeros: int
    mean: Float64[np.ndarray, " voxels"]
    """Of the people's maps, what is drawn over; NaN where unknown."""
    text: tuple[str, ...] = ()


def scan_images(scan: Scan, context: Context, spool: np.ndarray, kept: np.ndarray | None) -> Scanned:
    """Test all voxels and targets.

    Parameters
    ----------
    spool
        Filled: targets x `MAPS` x voxels.
    kept
        Filled where permutations follow: what is tested, people x voxels.

    Raises
    ------
    ResourceError
        It does not fit in the memory.
    """
    return _by_chunks(scan, context, spool, kept) if scan.scored else _by_passes(scan, context, spool, kept)


@dataclass(frozen=True, slots=True)
class _Pass:
    """What one reading of all images takes, within the memory."""

    voxels: int
    slots: int
    """Voxels that somebody may lack."""
    batch: int
    """Images of a product."""


def _plan(study: Scan, context: Context) -> _Pass:
    """Return the plan of a pass.

    Raises
    ------
    ResourceError
        Not even a few thousand voxels fit.
    """
    waiting = 4 * _BATCH * (2 * context.executor.workers + 1)
    most = min(_BATCHES[0], max(len(study.images), _BATCHES[-1]))
    fixed = _fixed_bytes(study, context)

    def needed(size: int, slots: int, batch: int) -> int:
        gathered = 4 * batch if batch > _BATCH else 0
        return fixed + voxelwise_bytes(study.design, size, slots=slots, batch=batch) + size * (waiting + gathered)

    size = study.maps.voxels.size
    while True:
        for share in (1, 4, 16):
            slots = max(-(-size // share), min(size, _FEWEST_VOXELS // 4))
            for batch in (min(b, most) for b in _BATCHES):
                if needed(size, slots, batch) <= context.memory_bytes:
                    return _Pass(size, slots, batch)
        if size <= _FEWEST_VOXELS:
            what = f"Testing {len(study.maps.names)} targets in {study.maps.voxels.size} voxels"
            require_memory(needed(size, slots, _BATCH), context.memory_bytes, what)
        size = -(-size // 2)


def _by_passes(study: Scan, context: Context, spool: np.ndarray, kept: np.ndarray | None) -> Scanned:
    """Test values as they are: sums over images as they come, as many voxels at a time as the memory allows."""
    plan = _plan(study, context)
    n_voxels = study.maps.voxels.size
    waiting = [np.arange(k, min(k + plan.voxels, n_voxels)) for k in range(0, n_voxels, plan.voxels)]
    zeros, passes, ranges = 0, 0, len(waiting)
    mean = np.full(n_voxels, np.nan)
    for number in count_from(1):
        if not waiting or not study.design.groups:
            break
        chosen, passes = waiting.pop(0), number
        sums, found = _one_pass(study, context, chosen, plan, number, kept if number <= ranges else None)
        zeros += found if number <= ranges else 0
        _spool(study, sums, chosen, spool)
        mean[chosen] = voxel_means(sums)
        if sums.deferred.any():
            waiting.append(chosen[sums.deferred])
        del sums
    return Scanned({"passes": passes}, zeros, mean)


def _by_chunks(study: Scan, context: Context, spool: np.ndarray, kept: np.ndarray | None) -> Scanned:
    """Test scores: all people of some voxels at a time, from a store that is written first or was before."""
    grid = int(np.prod(study.maps.grid.shape))
    people, n_voxels = len(study.every), study.maps.voxels.size
    _require_chunk_memory(study, context, store_width(people, n_voxels, context))  # before hours of reading
    store, reused = open_or_write_store(
        study.every, study.maps.voxels, grid, study.store, zeros=study.zeros, context=context
    )
    _require_chunk_memory(study, context, store.width)
    people = len(study.images)
    tasks = [ScoreTask(store, chunk, study.mads, study.rank) for chunk in range(store.chunks)]
    outliers = values = zero_mad = 0
    mean = np.full(study.maps.voxels.size, np.nan)
    scored = context.progress.track(context.executor.map(read_scores, tasks), "Testing voxels", len(tasks))
    for chunk, found in enumerate(scored):
        places = store.voxels_of(chunk)
        everyone = study.rows.size == store.people and bool((study.rows == np.arange(people)).all())
        chosen = found.values if everyone else found.values[study.rows]
        if study.design.groups:
            sums = start_voxelwise(study.design, places.size)
            for start in range(0, people, _PEOPLE):
                part = np.arange(start, min(start + _PEOPLE, people))
                add_voxelwise(sums, chosen[part[0] : part[-1] + 1], part)
            _spool(study, sums, places, spool)
        if kept is not None:
            kept[:, places[0] : places[-1] + 1] = chosen
        mean[places] = found.mean
        outliers += int(found.n_outliers.sum())
        values += int(found.n_values.sum())
        zero_mad += found.n_zero_mad
    counts = {
        "store": "reused" if reused else "written", "people_normalised_over": store.people, "values": values,
        "outliers": outliers, "voxels_with_zero_mad": zero_mad,
    }  # fmt: skip
    text = [
        f"{outliers} outliers removed of {values} values; {zero_mad} voxels with more than half of the values equal"
    ]
    if outliers > _MANY_OUTLIERS * values:
        text.append(
            f"The outlier rule removes {outliers / values:.1%} of the values: they are skewed; transform them first, "
            "or use --outliers none."
        )
    return Scanned(counts, store.n_zeros, mean, tuple(text))


def _require_chunk_memory(study: Scan, context: Context, width: int) -> None:
    """Check that testing chunks of `width` voxels fits in the memory.

    Raises
    ------
    ResourceError
        It does not.
    """
    store = VoxelStore(Path(), len(study.every), study.maps.voxels.size, width, 0)
    needed = (
        score_bytes(store, context.executor.workers) + 8 * store.people * store.width + _fixed_bytes(study, context)
    )
    needed += voxelwise_bytes(study.design, store.width, slots=store.width, batch=min(_PEOPLE, len(study.images)))
    what = f"Testing {len(study.maps.names)} targets in chunks of {store.width} voxels of {store.people} people"
    require_memory(needed, context.memory_bytes, what)


def _fixed_bytes(study: Scan, context: Context) -> int:
    """Return the memory of the design, of lists of voxels, and of reading and writing one map; checks permutations.

    Raises
    ------
    ResourceError
        Permuting does not fit.
    """
    grid = int(np.prod(study.maps.grid.shape))
    fixed = study.maps.voxels.size * (8 + _COUNT_BYTES) + grid * (READ_BYTES * context.executor.workers + _WRITE_BYTES)
    around = study.maps.around
    fixed += _AROUND_BYTES * study.maps.voxels.size
    if around.gradient is not None or around.tissue is not None or around.background is not None:
        fixed += _EDGE_BYTES * grid
    fixed += 16 * len(study.images) * (study.design.n_moments + len(study.maps.names))
    if study.permutations is not None:
        plan, groups = study.permutations, study.design.groups
        permuting = fixed + permutations_bytes(groups, study.maps.voxels.size, whole=plan.whole)
        require_memory(permuting, context.memory_bytes, f"Permuting {study.maps.voxels.size} voxels")
    return fixed


def _one_pass(
    study: Scan,
    context: Context,
    chosen: Int[np.ndarray, " chosen"],
    plan: _Pass,
    number: int,
    kept: np.ndarray | None,
) -> tuple[VoxelwiseSums, int]:
    """Return the sums of some voxels over all images, and how many values were exactly 0."""
    path = context.shards / f"voxels-{number}.npy"
    save_voxels(study.maps.voxels[chosen], path)
    tasks = image_tasks(
        study.images.paths, path, (0, chosen.size), batch=_BATCH, zeros_missing=study.zeros == "missing"
    )
    sums = start_voxelwise(study.design, chosen.size, slots=plan.slots)
    name = "Reading images" if number == 1 else f"Reading images, pass {number}"
    first = zeros = 0
    blocks = context.progress.track(context.executor.map(read_images, tasks), name, len(tasks))
    for block in gather_rows(blocks, plan.batch):
        add_voxelwise(sums, block, np.arange(first, first + block.shape[0]))
        if kept is not None:
            kept[first : first + block.shape[0], chosen[0] : chosen[-1] + 1] = block
        first += block.shape[0]
        zeros += int(block.size - np.count_nonzero(block))
    return sums, zeros


def _spool(study: Scan, sums: VoxelwiseSums, chosen: Int[np.ndarray, " chosen"], spool: np.ndarray) -> None:
    """Put the estimates of a pass where those of each target lie together."""
    for k, group in enumerate(study.design.groups):
        step = voxels_at_once(group)
        for start in range(0, chosen.size, step):
            part = slice(start, min(start + step, chosen.size))
            maps = finish_voxelwise(sums, k, part)
            for at, target in enumerate(group.members):
                for row, name in enumerate(MAPS):
                    spool[target, row, chosen[part]] = maps.n if name == "n" else getattr(maps, name)[at]
