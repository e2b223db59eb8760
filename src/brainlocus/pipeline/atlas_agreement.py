"""Two folders of ``atlas fit`` compared scale by scale, as tables."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core import AlignmentError, ResultTable, check_same_grid
from brainlocus.core.results import concat_results
from brainlocus.core.text import text_array
from brainlocus.images.atlas import FitAgreement, compare_fits, component_name, unit_components
from brainlocus.io import read_mask, read_parcellation
from brainlocus.pipeline.step import Context

__all__ = ["compare_folders", "fit_report"]


def compare_folders(
    first: Path,
    second: Path,
    scales: Sequence[int],
    people: tuple[int, int],
    context: Context,
    *,
    repeat: int = 0,
    permutations: int = 10,
) -> dict[str, ResultTable]:
    """Return the tables ``reproducibility`` (a row a scale) and ``components`` (a row a pair) of two fits.

    Parameters
    ----------
    first, second
        Folders of ``atlas fit``; voxels of both masks count, columns get unit norm over them.
    people
        How many people each fit has.

    Raises
    ------
    AlignmentError
        Other grids, or masks without a common voxel.
    """
    masks = [read_mask(folder / "mask.nii.gz") for folder in (first, second)]
    check_same_grid(masks[1].grid, masks[0].grid, what=str(second))
    both = masks[0].data & masks[1].data
    if not both.any():
        raise AlignmentError(f"The masks of {first} and {second} share no voxel. Fit both with one --mask.")
    rows = [np.flatnonzero(both[mask.data]) for mask in masks]
    summary, components = [], []
    for scale in scales:
        folders = [folder / f"C{scale}" for folder in (first, second)]
        weights = [
            unit_components(np.load(folder / "components.npy", mmap_mode="r"), voxels=kept)
            for folder, kept in zip(folders, rows, strict=True)
        ]
        labels = [read_parcellation(folder / "labels.nii.gz").labels[both] for folder in folders]
        found = compare_fits(
            weights[0], weights[1], (labels[0], labels[1]),
            generator=context.rng(repeat, scale), permutations=permutations,
        )  # fmt: skip
        converged = all(fit_report(folder, scale).get("converged", True) for folder in (first, second))
        sizes = [np.bincount(one, minlength=scale + 1) for one in labels]
        components.append(_component_rows(found, scale, repeat, sizes))
        summary.append(
            _summary_row(found, scale, repeat, people, sizes, "ok" if converged else "a fit did not converge")
        )
    return {"reproducibility": concat_results(summary), "components": concat_results(components)}


def _component_rows(found: FitAgreement, scale: int, repeat: int, sizes: list[Any]) -> ResultTable:
    n = found.product.size

    def names(labels: Any) -> Any:
        return text_array(component_name(scale, int(k)) if k else "" for k in labels)

    return ResultTable(
        {
            "scale": np.full(n, scale),
            "repeat": np.full(n, repeat),
            "region": names(found.first),
            "matched_region": names(found.second),
            "inner_product": found.product,
            "dice": found.dice,
            "n_voxels": np.where(found.first > 0, sizes[0][found.first], 0),
            "matched_n_voxels": np.where(found.second > 0, sizes[1][found.second], 0),
        }
    )


def _summary_row(
    found: FitAgreement, scale: int, repeat: int, people: tuple[int, int], sizes: list[Any], status: str
) -> ResultTable:
    def spread(values: Any) -> float:
        return float(values.std(ddof=1)) if values.size > 1 else float("nan")

    return ResultTable(
        {
            "scale": np.array([scale]),
            "repeat": np.array([repeat]),
            "n_first": np.array([people[0]]),
            "n_second": np.array([people[1]]),
            "n_regions_first": np.array([int((sizes[0][1:] > 0).sum())]),
            "n_regions_second": np.array([int((sizes[1][1:] > 0).sum())]),
            "reproducibility": np.array([found.index]),
            "reproducibility_sd": np.array([spread(found.product)]),
            "reproducibility_median": np.array([float(np.median(found.product))]),
            "null_reproducibility": np.array([float(found.null.mean())]),
            "null_reproducibility_sd": np.array([spread(found.null)]),
            "adjusted_rand": np.array([found.adjusted_rand]),
            "adjusted_mutual_information": np.array([found.adjusted_mutual_information]),
            "mean_dice": np.array([float(found.dice.mean())]),
            "status": text_array([status]),
        }
    )


def fit_report(folder: Path, scale: int) -> dict[str, Any]:
    """Return what ``atlas fit`` says of a scale; nothing where it says nothing."""
    path = folder / f"C{scale}" / "fit.json"
    content = json.loads(path.read_text()) if path.is_file() else {}
    return content if isinstance(content, dict) else {}
