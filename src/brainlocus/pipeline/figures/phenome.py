"""Figures of a phenome scan: every association by category of phenotype, or by group of trait."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64, Shaped

from brainlocus.core import ResultTable
from brainlocus.pipeline.figures.canvas import GREY, PALETTE, new_figure, save_figure

__all__ = ["draw_phenome", "draw_phenome_traits"]

_LEAST_WIDTH = 0.025
"""Of a group, as a share of all members."""
_NUMBER = re.compile(r"(\d+)")


def draw_phenome(results: ResultTable, path: Path, *, bonferroni: float | None = None, n_labels: int = 8) -> None:
    """Draw associations by category of phenotype; triangles point with the sign.

    Parameters
    ----------
    results
        Tests with a result: all, or the strongest of a large scan.
    bonferroni
        -log10 p of the corrected level; None where tests are corrected in several groups.
    """
    place = _places(results["category"], results["phenotype"])
    figure, axis = _drawn(results, place, results["category"], unnamed="no category")
    lines = [(bonferroni, "Bonferroni", "--"), (_fdr_line(results), "FDR 5 %", ":")]
    for value, label, style in lines:
        if value is not None:
            axis.axhline(value, color=GREY, lw=1, ls=style, label=label)
    passed = np.flatnonzero(results["q_bh"] <= 0.05)
    _label_top(axis, place[passed], results["neg_log10_p"][passed], results["phenotype"][passed], n_labels)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    save_figure(figure, path)


def draw_phenome_traits(
    results: ResultTable, path: Path, *, bonferroni: Mapping[str, float], n_labels: int = 8
) -> None:
    """Draw associations by group of trait (the scale of an atlas); triangles point with the sign.

    Parameters
    ----------
    bonferroni
        -log10 p of the corrected level of each group.
    """
    place = _places(results["trait_group"], results["trait"])
    figure, axis = _drawn(results, place, results["trait_group"], unnamed="no group")
    for k, (group, value) in enumerate(bonferroni.items()):
        inside = place[results["trait_group"] == group]
        if inside.size:
            label = "Bonferroni of the group" if k == 0 else None
            axis.plot([inside.min() - 0.5, inside.max() + 0.5], [value, value], color=GREY, lw=1, ls="--", label=label)
    names = np.array([f"{t}: {p}" for t, p in zip(results["trait"], results["phenotype"], strict=True)], dtype=np.str_)
    passed = np.flatnonzero(results["p_bonferroni"] < 0.05)
    _label_top(axis, place[passed], results["neg_log10_p"][passed], names[passed], n_labels)
    if axis.get_legend_handles_labels()[0]:
        axis.legend(frameon=False, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2)
    save_figure(figure, path)


def _drawn(
    results: ResultTable, place: Float64[np.ndarray, " tests"], groups: Shaped[np.ndarray, " tests"], *, unnamed: str
) -> tuple[Any, Any]:
    figure, axes = new_figure(width=10.0, height=4.4)
    axis = axes[0, 0]
    names = sorted(set(groups.tolist()), key=_natural)
    size = float(np.clip(16.0 * (2_000 / max(len(results), 1)) ** 0.25, 4.0, 16.0))
    for k, name in enumerate(names):
        for sign, marker in ((1.0, "^"), (-1.0, "v")):
            chosen = (groups == name) & (np.sign(results["r"]) == sign)
            axis.scatter(
                place[chosen], results["neg_log10_p"][chosen], s=size, marker=marker, lw=0, color=PALETTE[k % 8]
            )
    middles = [float((place[groups == name].min() + place[groups == name].max()) / 2) for name in names]
    small = 9 if len(names) <= 12 else 7
    labels = [_short(name) or (unnamed if len(names) > 1 else "") for name in names]
    axis.set_xticks(middles, labels, rotation=35, ha="right", rotation_mode="anchor", fontsize=small)
    axis.set_ylabel("−log₁₀ p")
    axis.margins(x=0.01)
    return figure, axis


def _short(name: str) -> str:
    return name if len(name) <= 34 else name[:33] + "…"


def _natural(name: str) -> tuple[tuple[int, int, str], ...]:
    """Return a key that puts C64 before C128."""
    return tuple((0, int(part), "") if part.isdigit() else (1, 0, part) for part in _NUMBER.split(name) if part)


def _places(groups: Shaped[np.ndarray, " tests"], names: Shaped[np.ndarray, " tests"]) -> Float64[np.ndarray, " tests"]:
    """Return where each member stands: side by side within its group, small groups drawn out so that labels fit."""
    keys = list(zip(groups.tolist(), names.tolist(), strict=True))
    ordered = sorted(set(keys), key=lambda pair: (_natural(pair[0]), _natural(pair[1])))
    sizes: dict[str, int] = {}
    for group, _ in ordered:
        sizes[group] = sizes.get(group, 0) + 1
    least = _LEAST_WIDTH * len(ordered)
    places: dict[tuple[str, str], float] = {}
    start, inside = 0.0, 0
    for k, (group, name) in enumerate(ordered):
        if k and group != ordered[k - 1][0]:
            start, inside = start + max(sizes[ordered[k - 1][0]], least), 0
        places[group, name] = start + (inside + 0.5) * max(sizes[group], least) / sizes[group]
        inside += 1
    return np.array([places[key] for key in keys], dtype=np.float64)


def _fdr_line(results: ResultTable) -> float | None:
    passed = results["neg_log10_p"][results["q_bh"] <= 0.05]
    return float(passed.min()) if passed.size else None


def _label_top(
    axis: object,
    place: Float64[np.ndarray, " tests"],
    strength: Float64[np.ndarray, " tests"],
    phenotypes: Shaped[np.ndarray, " tests"],
    count: int,
) -> None:
    """Name the strongest phenotypes at their tops, right or left of the point, where no other label is."""
    drawn: Any = axis
    left, right = drawn.get_xlim()
    low, high = drawn.get_ylim()
    width, height = 0.11 * (right - left), 0.045 * (high - low)
    done: set[str] = set()
    boxes: list[tuple[float, float]] = []
    for k in np.argsort(-strength, kind="stable"):
        name, x, y = str(phenotypes[k]), float(place[k]), float(strength[k])
        if name in done or len(done) >= count:
            continue
        done.add(name)
        for start, offset, side in ((x, 4, "left"), (x - width, -4, "right")):
            if start >= left and not any(abs(start - u) < width and abs(y - v) < height for u, v in boxes):
                boxes.append((start, y))
                drawn.annotate(
                    name, (x, y), xytext=(offset, 2), textcoords="offset points", fontsize=7, ha=side
                )  # fmt: skip
                break
