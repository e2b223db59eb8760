"""Images kept voxel by voxel on disk: written once, read chunk by chunk with all people of a chunk's voxels together.

A store is a folder of ``values.f32`` and ``store.json``. The file holds chunks of voxels one after the other, each an
array of people x voxels in single precision, little-endian, NaN where there is no value: to write an image takes one
piece of every chunk, to read a chunk one piece of the file. Chunks are narrower where people are more, so that all
chunks are of about the same size.
"""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Float64, Int

from brainlocus.cohort.associate import score_voxels, score_voxels_bytes
from brainlocus.core import FormatError, SchemaError
from brainlocus.io import ImageList, atomic_path
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.image_voxels import READ_BYTES, gather_rows, image_tasks, read_images, save_voxels
from brainlocus.pipeline.step import Context

__all__ = [
    "ChunkScores",
    "ScoreTask",
    "VoxelStore",
    "open_or_write_store",
    "read_scores",
    "score_bytes",
    "store_identity",
    "store_width",
]

_FORMAT = 1
_DESCRIPTION, _VALUES = "store.json", "values.f32"
_TASK = 16
"""Images of a task of reading."""
_BATCHES = (128, 64, 16)
"""Images that are written side by side, as many as the memory allows."""
_WIDEST, _CELLS = 1024, 1 << 21
"""Voxels of a chunk at most, and voxels times people."""
_FEWEST_VOXELS = 1024


@dataclass(frozen=True, slots=True)
class VoxelStore:
    """Where the values are."""

    path: Path
    people: int
    voxels: int
    width: int
    """Voxels of a chunk; the last has fewer."""
    n_zeros: int
    """Values of exactly 0 that were read."""

    @property
    def chunks(self) -> int:
        """Number of chunks."""
        return -(-self.voxels // self.width)

    def voxels_of(self, chunk: int) -> Int[np.ndarray, " voxels"]:
        """Return the places of a chunk's voxels among the store's."""
        return np.arange(chunk * self.width, min((chunk + 1) * self.width, self.voxels))

    def read(self, chunk: int) -> Float32[np.ndarray, "people voxels"]:
        """Return the values of a chunk.

        Raises
        ------
        FormatError
            The file has fewer.
        """
        count = self.people * self.voxels_of(chunk).size
        offset = 4 * self.people * self.width * chunk
        values: np.ndarray = np.fromfile(self.path, dtype="<f4", count=count, offset=offset)
        if values.size < count:
            raise FormatError(
                f"{self.path}: expected {4 * self.people * self.voxels} bytes, found {self.path.stat().st_size}. "
                "Remove the store and let it be written again."
            )
        return values.reshape(self.people, -1)


@dataclass(frozen=True, slots=True)
class ScoreTask:
    """A chunk that is to be scored, and how."""

    store: VoxelStore
    chunk: int
    mads: float | None
    rank: bool


@dataclass(frozen=True, slots=True, eq=False)
class ChunkScores:
    """What is tested of a chunk."""

    values: Float64[np.ndarray, "people voxels"]
    n_outliers: Int[np.ndarray, " voxels"]
    n_values: Int[np.ndarray, " voxels"]
    """Before outliers were removed."""
    n_zero_mad: int
    mean: Float64[np.ndarray, " voxels"]
    """Of the values as they are; NaN where nobody has the voxel."""


def score_bytes(store: VoxelStore, workers: int) -> int:
    """Return the memory of scoring chunks: what workers hold, and results that wait."""
    cells = store.people * store.width
    return workers * (16 * cells + score_voxels_bytes(store.width, store.people)) + 8 * cells * (2 * workers + 1)


def read_scores(task: ScoreTask) -> ChunkScores:
    """Return the scores of a chunk; NaN where nothing is tested."""
    values = np.ascontiguousarray(task.store.read(task.chunk).T, dtype=np.float32)
    found = score_voxels(values, mads=task.mads, rank=task.rank)
    known = np.isfinite(values)
    n_values = known.sum(axis=1)
    total = np.where(known, values, 0.0).sum(axis=1, dtype=np.float64)
    mean = np.divide(total, n_values, out=np.full(n_values.size, np.nan), where=n_values > 0)
    zero_mad = int(found.zero_mad.sum())
    return ChunkScores(np.ascontiguousarray(found.values.T), found.n_outliers, n_values, zero_mad, mean)


def store_identity(images: ImageList, voxels: Int[np.ndarray, " voxels"], *, zeros: str) -> dict[str, str]:
    """Return what a store is made of: digests of the images (id, path, size, time of change) and of the voxels."""
    lines = hashlib.sha256()
    for name, path in zip(images.samples.ids, images.paths, strict=True):
        found = path.stat()
        lines.update(f"{name}\t{path.resolve()}\t{found.st_size}\t{found.st_mtime_ns}\n".encode())
    mask = hashlib.sha256(np.ascontiguousarray(voxels, dtype="<i8").tobytes()).hexdigest()
    return {"images": lines.hexdigest(), "mask": mask, "zeros": zeros}


def open_or_write_store(
    images: ImageList,
    voxels: Int[np.ndarray, " voxels"],
    grid: int,
    folder: Path | None,
    *,
    zeros: str,
    context: Context,
) -> tuple[VoxelStore, bool]:
    """Return the store of some images, and whether it was there before.

    Parameters
    ----------
    grid
        Voxels of an image.
    folder
        Kept there, or taken from there; None: written to the working files of the run.

    Raises
    ------
    SchemaError
        The folder holds something else, or a store of other images, another mask or other settings.
    ResourceError
        Not even a few voxels of some images fit in the memory.
    """
    identity = store_identity(images, voxels, zeros=zeros)
    if folder is not None and (folder / _DESCRIPTION).is_file():
        return _open(folder, identity), True
    if folder is not None and folder.exists() and not _is_free(folder):
        raise SchemaError(
            f"--store {folder}: expected a new or empty folder, or a store that was written before; found something "
            "else. Give another name."
        )
    with _new_folder(context.shards / "store" if folder is None else folder) as where:
        return _write(images, voxels, grid, where, identity, context), False


def _is_free(folder: Path) -> bool:
    """Return whether a folder is empty, but for what an interrupted run left."""
    return folder.is_dir() and all(path.name == _VALUES for path in folder.iterdir())


@contextmanager
def _new_folder(folder: Path) -> Iterator[Path]:
    """Make a folder, which goes again when the work in it fails."""
    existed = folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield folder
    except BaseException:
        (folder / _VALUES).unlink(missing_ok=True)
        if not existed:
            shutil.rmtree(folder, ignore_errors=True)
        raise


def _open(folder: Path, identity: dict[str, str]) -> VoxelStore:
    path = folder / _DESCRIPTION
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        store = VoxelStore(folder / _VALUES, **{k: int(found[k]) for k in ("people", "voxels", "width", "n_zeros")})
        same = [key for key, value in identity.items() if found["made_of"][key] == value]
        version = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise FormatError(f"{path}: expected the description of a voxel store, found something else.") from error
    changed = [key for key in identity if key not in same]
    if changed or version != _FORMAT:
        what = ", ".join(changed) or f"format {version}"
        raise SchemaError(
            f"--store {folder}: this store was made from others ({what}) than are given now. Give the images, the mask "
            "and --zeros it was made from, or another folder."
        )
    size = store.path.stat().st_size if store.path.is_file() else 0
    if size != 4 * store.people * store.voxels:
        raise FormatError(
            f"{store.path}: expected {4 * store.people * store.voxels} bytes, found {size}. Remove the store and let "
            "it be written again."
        )
    return store


def _write(
    images: ImageList,
    voxels: Int[np.ndarray, " voxels"],
    grid: int,
    folder: Path,
    identity: dict[str, str],
    context: Context,
) -> VoxelStore:
    """Stream the images into the file; range of voxels by range where the memory is small."""
    width = store_width(len(images), voxels.size, context)
    size, batch = _plan(len(images), voxels.size, grid, width, context)
    path = folder / _VALUES
    store = VoxelStore(path, len(images), voxels.size, width, 0)
    save_voxels(voxels, context.shards / "store-voxels.npy")
    zeros = 0
    with path.open("wb") as stream:
        for number, lowest in enumerate(range(0, voxels.size, size), start=1):
            bounds = (lowest, min(lowest + size, voxels.size))
            tasks = image_tasks(
                images.paths, context.shards / "store-voxels.npy", bounds, batch=_TASK,
                zeros_missing=identity["zeros"] == "missing",
            )  # fmt: skip
            name = "Writing the store" + ("" if size >= voxels.size else f", part {number}")
            blocks = context.progress.track(context.executor.map(read_images, tasks), name, len(tasks))
            first = 0
            for block in gather_rows(blocks, batch):
                zeros += int(block.size - np.count_nonzero(block))
                for chunk in range(lowest // width, -(-bounds[1] // width)):
                    places = store.voxels_of(chunk)
                    stream.seek(4 * (store.people * width * chunk + first * places.size))
                    stream.write(block[:, places[0] - lowest : places[-1] + 1 - lowest].astype("<f4").tobytes())
                first += block.shape[0]
    store = VoxelStore(path, store.people, store.voxels, width, zeros)
    content = {key: value for key, value in asdict(store).items() if key != "path"}
    with atomic_path(folder / _DESCRIPTION) as partial:
        partial.write_text(json.dumps({"format": _FORMAT, **content, "made_of": identity}, indent=1) + "\n")
    return store


def store_width(people: int, voxels: int, context: Context) -> int:
    """Return the voxels of a chunk: scoring chunks is to take a quarter of the memory."""
    width = max(min(_WIDEST, _CELLS // people, voxels), 1)
    while width > 1 and score_bytes(VoxelStore(Path(), people, voxels, width, 0), context.executor.workers) > (
        context.memory_bytes // 4
    ):
        width = -(-width // 2)
    return width


def _plan(people: int, voxels: int, grid: int, width: int, context: Context) -> tuple[int, int]:
    """Return how many voxels are written in one pass over the images, whole chunks, and how many images at once."""
    workers = context.executor.workers

    def needed(size: int, batch: int) -> int:
        gathered = 8 * batch if batch > _TASK else 4 * batch
        return 16 * voxels + grid * READ_BYTES * workers + size * (4 * _TASK * (2 * workers + 1) + gathered)

    size = voxels
    while True:
        for batch in (min(b, max(people, _TASK)) for b in _BATCHES):
            if needed(size, batch) <= context.memory_bytes:
                return size, batch
        if size <= max(_FEWEST_VOXELS, width):
            require_memory(needed(size, _TASK), context.memory_bytes, f"Keeping {voxels} voxels of {people} images")
        size = -(-size // (2 * width)) * width
