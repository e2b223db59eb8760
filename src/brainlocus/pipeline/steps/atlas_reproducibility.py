"""``atlas reproducibility``: the same atlas fitted to two halves of a cohort, or two finished fits, compared.

Written to OUT: ``reproducibility.tsv`` (a row a scale and repeat), ``components.tsv`` (a row a pair of components),
``splits.tsv`` (who was in which half) and ``reproducibility.png``.
"""

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from jaxtyping import Bool
from pydantic import Field

from brainlocus.core import Mask, ResultTable, SampleIndex, SchemaError
from brainlocus.core.results import concat_results
from brainlocus.core.text import text_array
from brainlocus.images.atlas import (
    compare_fits_peak_bytes,
)
from brainlocus.io import (
    ImageList,
    atomic_path,
    convert_images,
    default_mask,
    find_images,
    read_mask,
    read_results,
    write_results,
)
from brainlocus.pipeline.atlas_agreement import compare_folders, fit_report
from brainlocus.pipeline.atlas_checkpoint import matrix_digest
from brainlocus.pipeline.atlas_scales import label_files
from brainlocus.pipeline.cohort_halves import Halves, people_of, split_by_column, split_in_half, strata
from brainlocus.pipeline.config import CommaList, InputPath, Positional
from brainlocus.pipeline.figures.reproducibility import draw_reproducibility
from brainlocus.pipeline.genomes import require_memory
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.pipeline.steps.atlas import AtlasFitConfig, check_fit, fit_images

__all__ = ["ATLAS_REPRODUCIBILITY", "AtlasReproducibilityConfig"]

_FEWEST = 2
_TABLES = ("reproducibility", "components")


class AtlasReproducibilityConfig(AtlasFitConfig):
    """Settings of ``atlas reproducibility``: those of ``atlas fit``, for both halves, and how to split."""

    images: Annotated[InputPath, Positional()] = Field(
        description="Maps, as atlas fit takes them; with --against, a folder that atlas fit wrote"
    )
    against: InputPath | None = Field(
        None, description="Another folder of atlas fit: compare the two; nothing is fitted"
    )
    split: str = Field("half", description="half: two random halves; or a column of --participants with two levels")
    participants: InputPath | None = Field(None, description="Table of people: columns of --split and --stratify")
    stratify: CommaList = Field((), description="Columns that both halves share alike, such as site,age,sex,diagnosis")
    repeats: int = Field(1, ge=1, description="How many random splits")
    permutations: int = Field(10, ge=1, description="Permutations of voxels for the index by chance")


def atlas_reproducibility(config: AtlasReproducibilityConfig, out: Path, context: Context) -> StepResult:
    """Compare two halves, or two fits."""
    _check(config)
    if config.against is not None:
        return _compare_finished(config, config.against, out, context)
    images, table, counts = _people(config)
    mask = read_mask(config.mask) if config.mask is not None else default_mask(images)
    n_voxels = int(mask.data.sum())
    if max(config.scales) > n_voxels:
        raise SchemaError(f"--scales: {max(config.scales)} components need as many voxels, the mask has {n_voxels}.")
    needed = compare_fits_peak_bytes(n_voxels, max(config.scales))
    require_memory(needed, context.memory_bytes, f"Comparing fits of {max(config.scales)} components")
    keys = [] if table is None else strata(table, config.stratify)
    cohort = _Cohort(images, mask, context)
    done, splits = [], []
    for repeat in range(config.repeats):
        if table is None or config.participants is None or config.split == "half":
            halves = split_in_half(keys, len(images), context.rng(repeat))
        else:
            halves = split_by_column(table, config.split, config.participants)
        _check_sizes(halves, config)
        splits.append(_split_table(images.samples, halves, repeat))
        done.append(_repeat(config, cohort, halves, repeat))
    tables = {name: concat_results([one[name] for one in done]) for name in _TABLES}
    counts |= {"voxels": n_voxels, "clipped_negatives": cohort.n_clipped()}
    counts["without_split"] = len(images) - len(splits[0])
    write_results(concat_results(splits), out / "splits.tsv")
    return _finish(config, tables, counts, out)


def _check(config: AtlasReproducibilityConfig) -> None:
    if config.against is not None:
        given = [o for o in ("mask", "participants", "stratify") if getattr(config, o)]
        if given or config.split != "half" or config.repeats > 1:
            named = ", ".join(f"--{o}" for o in given) or "--split and --repeats"
            raise SchemaError(f"--against compares two finished fits and takes no {named}; leave them out.")
        return
    check_fit(config)
    if config.participants is None and (config.stratify or config.split != "half"):
        raise SchemaError("--stratify and --split COLUMN need --participants, a table with those columns.")
    if config.split != "half" and (config.repeats > 1 or config.stratify):
        raise SchemaError(
            f"--split {config.split}: a column gives one split, so that --repeats and --stratify have no meaning; "
            "leave them out, or take --split half."
        )


def _people(config: AtlasReproducibilityConfig) -> tuple[ImageList, Any, dict[str, Any]]:
    images = find_images(config.images, pattern=config.pattern, image_ids=config.image_ids, arrays=True)
    people, table, counts = people_of(images.samples, config.participants)
    return images.take(images.samples.indices_of(people)), table, counts


def _check_sizes(halves: Halves, config: AtlasReproducibilityConfig) -> None:
    sizes = [int(half.sum()) for half in (halves.first, halves.second)]
    if min(sizes) < _FEWEST:
        raise SchemaError(
            f"--split {config.split}: expected {_FEWEST} people or more in each part, found {sizes[0]} in "
            f"{halves.names[0]!r} and {sizes[1]} in {halves.names[1]!r}."
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Cohort:
    """Images that are read once, for the halves of all repeats."""

    images: ImageList
    mask: Mask
    context: Context

    def matrix(self) -> Path:
        """Return the voxel-major matrix of all people, made when first asked for."""
        path, note = self.context.shards / "images.npy", self.context.shards / "images.json"
        if not note.exists():
            converted = convert_images(
                self.images,
                self.mask,
                out=path,
                memory_bytes=self.context.memory_bytes // 2,
                track=lambda paths: self.context.progress.track(paths, "Reading images", len(paths)),
            )
            with atomic_path(note) as partial:
                partial.write_text(json.dumps({"n_clipped": converted.n_clipped}))
        return path

    def n_clipped(self) -> int:
        """Return how many tiny negatives were set to 0."""
        self.matrix()
        return int(json.loads((self.context.shards / "images.json").read_text())["n_clipped"])

    def prepare(self, chosen: Bool[np.ndarray, " people"], folder: Path) -> ImageList:
        """Leave the people's matrix in a folder of shards, where `atlas fit` takes up what it finds; return them."""
        folder.mkdir(parents=True, exist_ok=True)
        whole, columns = np.load(self.matrix(), mmap_mode="r"), np.flatnonzero(chosen)
        with atomic_path(folder / "images.npy") as partial:
            shape = (whole.shape[0], columns.size)
            part = np.lib.format.open_memmap(partial, mode="w+", dtype=np.float32, shape=shape)
            step = max(1, (16 << 20) // (4 * whole.shape[1]))
            for start in range(0, whole.shape[0], step):
                part[start : start + step] = whole[start : start + step][:, columns]
            part.flush()
        people = self.images.take(columns)
        note = {"n_clipped": 0, "digest": matrix_digest(people, self.mask)}
        (folder / "images.json").write_text(json.dumps(note))
        return people


def _repeat(config: AtlasReproducibilityConfig, cohort: _Cohort, halves: Halves, repeat: int) -> dict[str, ResultTable]:
    """Return the tables of one split, from an interrupted run where that had finished it."""
    work = cohort.context.shards / f"repeat_{repeat}"
    files = {name: cohort.context.shards / f"repeat_{repeat}_{name}.parquet" for name in _TABLES}
    if not files[_TABLES[-1]].exists():
        folders = [
            _fit(config, cohort, chosen, work, half) for half, chosen in enumerate((halves.first, halves.second))
        ]
        sizes = int(halves.first.sum()), int(halves.second.sum())
        tables = compare_folders(
            folders[0],
            folders[1],
            config.scales,
            sizes,
            cohort.context,
            repeat=repeat,
            permutations=config.permutations,
        )
        for name, path in files.items():
            write_results(tables[name], path)
        shutil.rmtree(work)
    return {name: read_results(path) for name, path in files.items()}


def _fit(
    config: AtlasReproducibilityConfig, cohort: _Cohort, chosen: Bool[np.ndarray, " people"], work: Path, half: int
) -> Path:
    """Fit a half as ``atlas fit`` does and return the folder that was written."""
    folder, shards = work / f"half_{half}", work / f"half_{half}.shards"
    if folder.exists():
        return folder
    context, repeat = cohort.context, int(work.name.split("_")[1])
    people = cohort.prepare(chosen, shards)
    settings = config.model_copy(update={"figures": False})
    seed = int(np.random.SeedSequence(context.seed, spawn_key=(repeat, half)).generate_state(1)[0])
    partial = work / f"half_{half}.partial"
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir()
    context.progress.say(f"Split {repeat + 1} of {config.repeats}: fitting {len(people)} people")
    fit_images(settings, people, cohort.mask, partial, replace(context, seed=seed, shards=shards))
    shutil.rmtree(shards)
    partial.rename(folder)
    return folder


def _compare_finished(config: AtlasReproducibilityConfig, against: Path, out: Path, context: Context) -> StepResult:
    """Compare the scales that two finished fits share."""
    pair = (config.images, against)
    found = [{int(p.parent.name[1:]) for p in label_files(folder) if folder.is_dir()} for folder in pair]
    for folder, scales in zip(pair, found, strict=True):
        needed = ("mask.nii.gz", *(f"C{scale}/components.npy" for scale in sorted(scales)))
        absent = next((name for name in needed if not (folder / name).is_file()), None)
        if not scales or absent:
            raise SchemaError(
                f"{folder}: expected a folder that atlas fit wrote, found {'no ' + absent if absent else 'a file'}. "
                "--against compares two such folders."
            )
    shared = sorted(found[0] & found[1])
    if not shared:
        raise SchemaError(
            f"{config.images} has the scales {sorted(found[0])}, {against} {sorted(found[1])}: none is in both."
        )
    n_voxels = int(read_mask(config.images / "mask.nii.gz").data.sum())
    require_memory(compare_fits_peak_bytes(n_voxels, shared[-1]), context.memory_bytes, "Comparing the two fits")
    people = [int(fit_report(folder, shared[0]).get("participants", 0)) for folder in pair]
    tables = compare_folders(
        config.images, against, shared, (people[0], people[1]), context, permutations=config.permutations
    )
    counts = {"scales": shared, "scales_of_one_only": sorted(found[0] ^ found[1]), "participants": people}
    return _finish(config.model_copy(update={"scales": tuple(shared)}), tables, counts, out)


def _split_table(samples: SampleIndex, halves: Halves, repeat: int) -> ResultTable:
    chosen = np.flatnonzero(halves.first | halves.second)
    names = [halves.names[0] if halves.first[k] else halves.names[1] for k in chosen]
    ids = text_array(samples.ids[chosen])
    return ResultTable({"participant_id": ids, "repeat": np.full(chosen.size, repeat), "half": text_array(names)})


def _finish(
    config: AtlasReproducibilityConfig, tables: dict[str, ResultTable], counts: dict[str, Any], out: Path
) -> StepResult:
    for name, table in tables.items():
        write_results(table, out / f"{name}.tsv")
    summary = tables["reproducibility"]
    if config.figures:
        draw_reproducibility(summary, tables["components"], out / "reproducibility.png")
    lines = []
    for scale in config.scales:
        rows = summary.take(summary["scale"] == scale)
        lines.append(
            f"C{scale}: reproducibility {rows['reproducibility'].mean():.3f} "
            f"(sd {rows['reproducibility_sd'].mean():.3f} over components, "
            f"by chance {rows['null_reproducibility'].mean():.3f}), adjusted Rand {rows['adjusted_rand'].mean():.3f}"
        )
    n_failed = int((summary["status"] != "ok").sum())
    return StepResult(counts, n_failed=n_failed, summary=tuple(lines))


ATLAS_REPRODUCIBILITY = Step(
    "atlas reproducibility",
    "Fit an atlas to both halves of a cohort and compare the two.",
    AtlasReproducibilityConfig,
    atlas_reproducibility,
    out="folder",
)
