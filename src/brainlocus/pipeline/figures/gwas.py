"""Figures of scans: Manhattan, Miami, Q-Q, genomic inflation. What they show is made ready in `gwas_points`."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure
from brainlocus.pipeline.figures.gwas_points import (
    GENOME_WIDE,
    AxisScale,
    GenomeLayout,
    QqCurve,
    ScaleName,
    genome_layout,
    lead_rows,
    make_scale,
    place_labels,
    place_on_genome,
    power_text,
    qq_band,
    same_sites,
    thin_to_pixels,
)

__all__ = ["Panel", "draw_inflation", "draw_manhattan", "draw_miami", "draw_qq"]

_SHADES = ((BLUE, "#8fb8d8"), (ORANGE, "#eab08a"))
"""Neighbouring chromosomes in dark and light of one hue, which all kinds of colour vision tell apart."""
_PIXELS = (1_300, 420)
"""Of the axes, about: points are thinned to these."""
_MOST_LABELS = 12
_LETTER, _LINE = 7.0, 15.0
"""Width of a letter and height of a line of a label, in pixels."""
_BINS_PER_SHADE = 10
_INK = "#1a1a1a"
_MINUS_LOG_P = "−log₁₀ p"


@dataclass(frozen=True, slots=True, eq=False)
class Panel:
    """The tests of one Manhattan plot."""

    title: str
    chromosome: Shaped[np.ndarray, " tests"]
    position: Int[np.ndarray, " tests"]
    neg_log10_p: Float[np.ndarray, " tests"]
    """NaN is no test."""
    label: Shaped[np.ndarray, " tests"]
    """Names of the variants."""
    thresholds: tuple[tuple[float, str], ...] = ((GENOME_WIDE, power_text(GENOME_WIDE)),)
    """p and name of each line, the strictest first."""
    shown_from: float = 0.0
    """Smallest -log10 p that is among the tests: 0 when all are, else that of the scan's hits."""
    below: Int[np.ndarray, " bins"] = field(default_factory=lambda: np.empty(0, dtype=np.int64))
    """Tests per 0.01 of -log10 p from 0 to `shown_from`, wherever they are."""


def draw_manhattan(panel: Panel, path: Path, *, layout: GenomeLayout | None = None, scale: ScaleName = "auto") -> None:
    """Draw -log10 p along the genome; leads beyond the strictest threshold are named.

    Parameters
    ----------
    layout
        Chromosomes to show, by default those of the tests.
    scale
        auto: linear to 20 and logarithmic above where p is below 1e-40; log: -log10 p itself on a logarithm.
    """
    figure, axes = new_figure(width=11.0, height=4.4)
    place = layout or genome_layout(panel.chromosome, panel.position)
    _draw_panel(axes[0, 0], panel, place, scale, _SHADES[0], upwards=True)
    _name_chromosomes(axes[0, 0], place)
    save_figure(figure, path)


def draw_miami(upper: Panel, lower: Panel, path: Path, *, scale: ScaleName = "auto") -> None:
    """Draw two scans on one genome, the second downwards, each on its own scale of p.

    The leads of the upper one are ringed in the lower, where they were tested.
    """
    figure, axes = new_figure(rows=2, width=11.0, height=3.4)
    place = genome_layout(
        np.concatenate([upper.chromosome.astype(np.str_), lower.chromosome.astype(np.str_)]),
        np.concatenate([upper.position, lower.position]),
    )
    top, bottom = axes[0, 0], axes[1, 0]
    leads = _leads(upper)
    _draw_panel(top, upper, place, scale, _SHADES[0], upwards=True)
    sites = same_sites(upper.chromosome[leads], upper.position[leads], lower.chromosome, lower.position)
    _draw_panel(bottom, lower, place, scale, _SHADES[1], upwards=False, ringed=sites)
    bottom.spines["top"].set_visible(True)
    bottom.spines["bottom"].set_visible(False)
    bottom.set_xticks([])
    _name_chromosomes(top, place)
    save_figure(figure, path)


def _leads(panel: Panel) -> Int[np.ndarray, " leads"]:
    """Return the tests that are named."""
    strictest = max((-np.log10(p) for p, _ in panel.thresholds), default=np.inf)
    strength = np.where(np.isfinite(panel.neg_log10_p), panel.neg_log10_p, -1.0)
    return lead_rows(panel.chromosome, panel.position, strength, at_least=float(strictest), count=_MOST_LABELS)


def _draw_panel(
    axis: Any,
    panel: Panel,
    layout: GenomeLayout,
    scale: ScaleName,
    shades: tuple[str, str],
    *,
    upwards: bool,
    ringed: Bool[np.ndarray, " tests"] | None = None,
) -> None:
    tested = np.isfinite(panel.neg_log10_p)
    values = np.where(tested, panel.neg_log10_p, 0.0)
    lines = [-np.log10(p) for p, _ in panel.thresholds]
    heights = make_scale(scale, [float(values.max(initial=0.0)), *lines, panel.shown_from])
    y = heights.forward(values)
    x, number = place_on_genome(layout, panel.chromosome, panel.position)
    top = float(heights.forward(np.array([heights.top]))[0])
    leads = _leads(panel)
    room = _draw_labels(axis, x[leads], y[leads], panel.label[leads], layout.length, top, upwards=upwards)
    _draw_below(axis, panel, heights, layout.length)
    drawn = np.flatnonzero(tested & (number >= 0))
    kept = drawn[thin_to_pixels(x[drawn], y[drawn], width=layout.length, top=top, pixels=_PIXELS)]
    for shade in (0, 1):
        chosen = kept[number[kept] % 2 == shade]
        axis.scatter(x[chosen], y[chosen], s=7, lw=0, color=shades[shade], rasterized=True)
    axis.scatter(x[leads], y[leads], s=26, marker="D", color=_INK, lw=0, zorder=3)
    if ringed is not None and (ringed & tested).any():
        rows = np.flatnonzero(ringed & tested)
        axis.scatter(
            x[rows], y[rows], s=42, marker="o", facecolor="none", edgecolor=_INK, lw=1.1, zorder=3, clip_on=False
        )
    _draw_lines(axis, panel, heights)
    ticks = heights.ticks()
    axis.set_yticks(heights.forward(ticks), [f"{t:g}" for t in ticks])
    if heights.broken:
        axis.axhline(20.0, color=GREY, lw=0.6)
    axis.set_ylim(*((0.0, room) if upwards else (room, 0.0)))
    axis.set_xlim(-0.005 * layout.length, 1.005 * layout.length)
    what = f"{_MINUS_LOG_P}  (logarithmic above 20)" if heights.broken else _MINUS_LOG_P
    if panel.shown_from > 0:
        what += f"\nbelow {panel.shown_from:g}: all tests, not placed"
    axis.set_ylabel(what, fontsize=9)
    if panel.title:
        axis.set_title(panel.title, fontsize=10, loc="left", y=1.0 if upwards else -0.09)
    if not tested.any():
        text = f"no test at p ≤ {10.0**-panel.shown_from:.3g}" if panel.shown_from else "no test"
        axis.text(0.5, 0.6, text, transform=axis.transAxes, ha="center", color=GREY)


def _draw_lines(axis: Any, panel: Panel, heights: AxisScale) -> None:
    styles = ("--", ":") if len(panel.thresholds) > 1 else ("--",)
    for (p, name), style in zip(panel.thresholds, styles, strict=False):
        at = float(heights.forward(np.array([-np.log10(p)]))[0])
        axis.axhline(at, color="#444444", lw=0.9, ls=style)
        axis.annotate(
            name, (1.0, at), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
            fontsize=7, va="center", annotation_clip=False,
        )  # fmt: skip


def _draw_below(axis: Any, panel: Panel, heights: AxisScale, width: float) -> None:
    """Shade the part of the axis whose tests were counted but not kept, the darker the more there are."""
    if not panel.below.size or panel.shown_from <= 0:
        return
    starts = np.arange(0, panel.below.size, _BINS_PER_SHADE)
    density = np.log10(1.0 + np.add.reduceat(panel.below, starts).astype(np.float64))
    ends = np.append(starts, panel.below.size) / panel.below.size
    edges = heights.forward(panel.shown_from * ends)
    mesh = (density / max(float(density.max()), 1e-9))[:, None]
    axis.pcolormesh(
        np.array([0.0, width]), edges, mesh, cmap="Greys", vmin=0.0, vmax=2.2, zorder=0, rasterized=True
    )  # fmt: skip


def _draw_labels(
    axis: Any,
    x: Float[np.ndarray, " leads"],
    y: Float[np.ndarray, " leads"],
    names: Shaped[np.ndarray, " leads"],
    width: float,
    top: float,
    *,
    upwards: bool,
) -> float:
    """Name the leads above their points and return the height of the axis that holds the names."""
    texts = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(str, names.tolist())]
    across, up = _PIXELS[0] / width, _PIXELS[1] / (1.12 * top)
    sizes = np.array([_LETTER * len(text) + 6.0 for text in texts])
    centre, lower = place_labels(x * across, y * up, sizes, line=_LINE, width=float(_PIXELS[0]))
    for k, text in enumerate(texts):
        at = (centre[k] / across, lower[k] / up)
        if lower[k] > y[k] * up + _LINE:
            axis.plot([x[k], at[0]], [y[k], at[1]], color=GREY, lw=0.5, zorder=1)
        axis.text(*at, text, fontsize=7, ha="center", va="bottom" if upwards else "top", zorder=4)
    return float(((lower + 1.1 * _LINE) / up).max(initial=1.04 * top))


def _name_chromosomes(axis: Any, layout: GenomeLayout) -> None:
    """Name the chromosomes at their middles, or the places of a single one in millions of bases."""
    if len(layout.names) == 1 and layout.stop[0] > 2.0:
        first, length = int(layout.first[0]), float(layout.stop[0])
        steps = (power * k for power in 10.0 ** np.arange(0, 9) for k in (1, 2, 5))
        step = next(s for s in steps if length / s <= 12)
        marks = np.arange(np.ceil(first / step) * step, first + length + 1, step)
        axis.set_xticks(marks - first, [f"{mark / 1e6:.10g}" for mark in marks], fontsize=8)
        axis.set_xlabel(f"place on chromosome {layout.names[0]} (Mb)")
        return
    axis.set_xlabel("chromosome")
    middle = (layout.start + layout.stop) / 2
    least = 0.012 * layout.length
    names, places = [], []
    last = -np.inf
    for name, place in zip(layout.names, middle.tolist(), strict=True):
        needed = least * max(len(name), 1)
        names.append(name if place - last >= needed else "")
        places.append(place)
        last = place if names[-1] else last
    axis.set_xticks(places, names, fontsize=8)


def draw_qq(curves: Sequence[QqCurve], path: Path, *, title: str = "", scale: ScaleName = "auto") -> None:
    """Draw observed against expected -log10 p of one or many traits, with lambda and the 95 % band of no effect."""
    figure, axes = new_figure(width=5.4, height=5.0)
    axis = axes[0, 0]
    tops = [float(curve.observed.max(initial=0.0)) for curve in curves]
    heights = make_scale(scale, tops)
    sizes = [curve.n_tests for curve in curves if curve.n_tests]
    if sizes:
        _draw_band(axis, heights, int(np.median(sizes)))
    several = len(curves) > len(PALETTE)
    for k, curve in enumerate(curves):
        colour, name = _curve_style(k, curve, several=several)
        at, y = curve.expected, heights.forward(curve.observed)
        if several:
            axis.plot(at, y, "-", color=colour, lw=0.7, alpha=max(0.1, min(0.5, 50.0 / len(curves))), rasterized=True)
        else:
            axis.plot(at, y, ".", color=colour, ms=5, mew=0, label=name, rasterized=True)
        beyond = curve.observed >= curve.open_above
        axis.plot(at[beyond], y[beyond], "^", color=colour, ms=6)
    if several:
        axis.plot([], [], "-", color=BLUE, label=_all_lambdas(curves))
    ticks = heights.ticks()
    axis.set_yticks(heights.forward(ticks), [f"{t:g}" for t in ticks])
    if heights.broken:
        axis.axhline(20.0, color=GREY, lw=0.6)
    axis.set_xlim(left=0.0)
    axis.set_ylim(bottom=0.0)
    axis.set_xlabel(f"expected {_MINUS_LOG_P}")
    axis.set_ylabel(f"observed {_MINUS_LOG_P}" + ("  (logarithmic above 20)" if heights.broken else ""))
    axis.set_title(title, fontsize=10, loc="left")
    axis.legend(frameon=False, fontsize=8, loc="upper left")
    if not sizes:
        axis.text(0.5, 0.5, "no test", transform=axis.transAxes, ha="center", color=GREY)
    save_figure(figure, path)


def _draw_band(axis: Any, heights: AxisScale, n_tests: int) -> None:
    """Draw what is expected without effect; its edges lie over the curves, which may hide the rest."""
    expected, low, high = qq_band(n_tests)
    axis.fill_between(
        expected, heights.forward(low), heights.forward(high), color="#d8d8d8", lw=0, label="95 % without effect"
    )
    for bound in (low, high):
        axis.plot(expected, heights.forward(bound), color=_INK, lw=0.6, ls=":", zorder=3)
    line = np.linspace(0.0, float(expected.max(initial=1.0)), 100)
    axis.plot(line, heights.forward(line), color=_INK, lw=0.8, zorder=3)


def _curve_style(k: int, curve: QqCurve, *, several: bool) -> tuple[str, str]:
    colour = BLUE if several else PALETTE[k % len(PALETTE)]
    known = f"λ = {curve.lambda_gc:.3f}" if np.isfinite(curve.lambda_gc) else "λ not known"
    return colour, f"{curve.name}: {known}, {curve.n_tests:,} tests"


def _all_lambdas(curves: Sequence[QqCurve]) -> str:
    found = np.array([curve.lambda_gc for curve in curves if np.isfinite(curve.lambda_gc)])
    if not found.size:
        return f"{len(curves):,} traits"
    return f"{len(curves):,} traits: λ median {np.median(found):.3f}, {found.min():.3f} to {found.max():.3f}"


def draw_inflation(lambdas: Float[np.ndarray, " traits"], path: Path) -> None:
    """Draw the distribution of lambda_GC over traits."""
    figure, axes = new_figure()
    axis = axes[0, 0]
    known = lambdas[np.isfinite(lambdas)]
    axis.hist(known, bins=min(40, max(8, known.size // 8)), color=BLUE)
    axis.axvline(1.0, color=GREY, lw=1)
    if known.size:
        axis.axvline(float(np.median(known)), color=ORANGE, lw=1.2, ls="--", label=f"median {np.median(known):.3f}")
        axis.legend(frameon=False)
    axis.set_xlabel("genomic inflation λ")
    axis.set_ylabel("traits")
    save_figure(figure, path)
