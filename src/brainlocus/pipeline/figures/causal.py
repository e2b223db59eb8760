"""Figure of ``twas causal``: the effects of a gene's variants, what was fitted through them, and how they disagree."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.genetics.twas import CausalEstimate, MrJtiResult
from brainlocus.io import GeneInstruments
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, PALETTE, new_figure, save_figure

__all__ = ["draw_causal"]

_NAMES = {
    "mr-jti": "MR-JTI",
    "ivw-fixed": "IVW (fixed)",
    "ivw-random": "IVW (random)",
    "egger": "Egger",
    "weighted-median": "weighted median",
    "wald-ratio": "Wald ratio",
}
_COLOURS = dict(zip(_NAMES, (ORANGE, BLUE, BLUE, PALETTE[2], PALETTE[3], BLUE), strict=True))
_MOST_RATIO = 4.0
"""Ratios farther from the middle than this many interquartile ranges lie beyond the funnel's axis."""


def draw_causal(
    gene: GeneInstruments, jti: MrJtiResult | None, estimates: Sequence[CausalEstimate], path: Path
) -> None:
    """Draw effects on the phenotype against effects on expression, a funnel of their ratios, and the estimates."""
    data = gene.instruments
    own = np.zeros(data.variants.size, dtype=bool)
    if jti is not None and jti.status == "ok":
        own = np.isin(data.variants, jti.terms[2:][jti.significant[2:]])
    columns = 3 if data.outcome_se is not None else 2
    figure, axes = new_figure(columns, width=4.4, height=3.8)
    figure.suptitle(" × ".join(filter(None, (gene.gene, gene.phenotype))))
    lines = _lines(jti, estimates)
    _scatter(axes[0, 0], gene, own, lines)
    if data.outcome_se is not None:
        _funnel(axes[0, 1], gene, own, lines)
    _forest(axes[0, -1], jti, estimates)
    save_figure(figure, path)


def _lines(jti: MrJtiResult | None, estimates: Sequence[CausalEstimate]) -> dict[str, tuple[float, float]]:
    """Return slope and intercept of what was fitted; both IVW have one line."""
    lines = {}
    if jti is not None and jti.status == "ok":
        lines["mr-jti"] = (jti.slope, 0.0)
    for one in estimates:
        if one.status == "ok" and not (one.method == "ivw-random" and "ivw-fixed" in lines):
            lines[one.method] = (one.beta, one.intercept if np.isfinite(one.intercept) else 0.0)
    return lines


def _scatter(axis: Any, gene: GeneInstruments, own: Any, lines: dict[str, tuple[float, float]]) -> None:
    data = gene.instruments
    # Oriented as Egger's regression is: the allele that raises expression.
    sign = np.where(data.exposure_beta < 0, -1.0, 1.0)
    x, y = sign * data.exposure_beta, sign * data.outcome_beta
    if data.outcome_se is not None or data.exposure_se is not None:
        axis.errorbar(
            x, y, xerr=data.exposure_se, yerr=data.outcome_se, fmt="none", ecolor=GREY, elinewidth=0.5, alpha=0.3
        )
    axis.scatter(x[~own], y[~own], s=12, color=BLUE, alpha=0.7, lw=0, zorder=2)
    axis.scatter(
        x[own], y[own], s=22, color=ORANGE, marker="D", lw=0, zorder=3, label="own term (MR-JTI)" if own.any() else None
    )
    axis.axhline(0, color=GREY, lw=0.6)
    reach = np.array([0.0, np.nanmax(x) * 1.05 if np.isfinite(x).any() else 1.0])
    for method, (slope, intercept) in lines.items():
        name = "IVW" if method.startswith("ivw") else _NAMES[method]
        axis.plot(reach, intercept + slope * reach, color=_COLOURS[method], lw=1.4, label=name, zorder=4)
    axis.set_xlim(0, None)
    axis.set_xlabel("effect on expression (eQTL)")
    axis.set_ylabel("effect on the phenotype (GWAS)")
    axis.legend(fontsize=7, frameon=False)
    axis.set_title("Effects of the variants", fontsize=9)


def _funnel(axis: Any, gene: GeneInstruments, own: Any, lines: dict[str, tuple[float, float]]) -> None:
    data = gene.instruments
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio, precision = data.outcome_beta / data.exposure_beta, np.abs(data.exposure_beta) / data.outcome_se
    known = np.isfinite(ratio) & np.isfinite(precision)
    axis.scatter(ratio[known & ~own], precision[known & ~own], s=12, color=BLUE, alpha=0.7, lw=0)
    axis.scatter(ratio[known & own], precision[known & own], s=22, color=ORANGE, marker="D", lw=0)
    for method, (slope, _) in lines.items():
        axis.axvline(slope, color=_COLOURS[method], lw=1.2)
    middle, title = lines.get("ivw-fixed", lines.get("mr-jti", (0.0, 0.0)))[0], "Ratios of the variants"
    if known.any():
        height = np.linspace(precision[known].max() / 200, precision[known].max(), 200)
        for side in (-1.96, 1.96):
            axis.plot(middle + side / height, height, color=GREY, lw=0.8, ls="--")
        low, mid, high = np.percentile(ratio[known], [25, 50, 75])
        width = max(_MOST_RATIO * (high - low), 1e-12)
        span = (min(mid, middle) - width, max(mid, middle) + width)
        beyond = int(((ratio[known] < span[0]) | (ratio[known] > span[1])).sum())
        axis.set_xlim(*span)
        title += f" ({beyond} beyond the axis)" if beyond else ""
    axis.set_ylim(0, None)
    axis.set_xlabel("effect of expression (ratio)")
    axis.set_ylabel("1 / standard error")
    axis.set_title(title, fontsize=9)


def _forest(axis: Any, jti: MrJtiResult | None, estimates: Sequence[CausalEstimate]) -> None:
    rows = []
    if jti is not None and jti.status == "ok":
        rows.append(("mr-jti", jti.slope, float(jti.lower[0]) * jti.scale, float(jti.upper[0]) * jti.scale))
    rows += [(e.method, e.beta, e.lower, e.upper) for e in estimates if e.status == "ok"]
    for at, (method, beta, lower, upper) in enumerate(reversed(rows)):
        ends = sorted((lower, upper))
        axis.hlines(at, *ends, color=GREY, lw=2)
        axis.plot(beta, at, "o", color=_COLOURS[method], ms=6)
    axis.axvline(0, color=GREY, lw=0.6, ls="--")
    axis.set_yticks(range(len(rows)), [_NAMES[row[0]] for row in reversed(rows)], fontsize=8)
    axis.set_ylim(-0.7, max(len(rows), 1) - 0.3)
    axis.set_xlabel("effect of expression on the phenotype")
    axis.set_title("Estimates" if rows else "No estimate", fontsize=9)
