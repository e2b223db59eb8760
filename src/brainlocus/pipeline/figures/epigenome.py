"""Figures of an epigenome-wide scan: volcano, components of the residuals."""

from pathlib import Path

import numpy as np
from jaxtyping import Float, Float64, Shaped

from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure, save_figure
from brainlocus.pipeline.figures.gwas_points import make_scale, place_labels, power_text, thin_to_pixels

__all__ = ["draw_components", "draw_volcano"]

_PIXELS = (560, 440)
_NAMED = 8
_LETTER, _LINE = 6.0, 13.0
_INK = "#1a1a1a"


def draw_volcano(
    beta: Float[np.ndarray, " tests"],
    neg_log10_p: Float[np.ndarray, " tests"],
    labels: Shaped[np.ndarray, " tests"],
    path: Path,
    *,
    level: float,
    title: str,
    unit: str,
) -> None:
    """Draw -log10 p against the effect; tests beyond `level` are coloured by their sign, the strongest named.

    Parameters
    ----------
    unit
        What an effect is in, for the axis.
    """
    figure, axes = new_figure(width=5.6, height=4.6)
    axis = axes[0, 0]
    known = np.flatnonzero(np.isfinite(neg_log10_p) & np.isfinite(beta))
    x, y = beta[known], neg_log10_p[known]
    reach = 1.15 * float(np.abs(x).max(initial=1e-12))
    heights = make_scale("auto", [float(y.max(initial=0.0)), -np.log10(level)])
    up = heights.forward(y)
    top = float(heights.forward(np.array([heights.top]))[0])
    shown = thin_to_pixels(x + reach, up, width=2 * reach, top=top, pixels=_PIXELS)
    beyond = y > -np.log10(level)
    for chosen, colour, name in (
        (~beyond, "#b8bec5", ""),
        (beyond & (x > 0), ORANGE, "higher"),
        (beyond & (x < 0), BLUE, "lower"),
    ):
        rows = shown[chosen[shown]]
        count = int(chosen.sum())
        axis.scatter(
            x[rows], up[rows], s=9, lw=0, color=colour, rasterized=True, label=f"{count:,} {name}" if name else None
        )
    strongest = np.argsort(-y, kind="stable")[:_NAMED]
    strongest = strongest[beyond[strongest]]
    across, tall = _PIXELS[0] / (2 * reach), _PIXELS[1] / (1.12 * top)
    texts = [str(labels[known[k]]) for k in strongest]
    sizes = np.array([_LETTER * len(text) + 6.0 for text in texts])
    centre, lower = place_labels(
        (x[strongest] + reach) * across, up[strongest] * tall, sizes, line=_LINE, width=float(_PIXELS[0])
    )
    for k, text in enumerate(texts):
        at = (centre[k] / across - reach, lower[k] / tall)
        if lower[k] > up[strongest[k]] * tall + _LINE:
            axis.plot([x[strongest[k]], at[0]], [up[strongest[k]], at[1]], color=GREY, lw=0.5, zorder=1)
        axis.text(*at, text, fontsize=7, ha="center", va="bottom", color=_INK)
    line = float(heights.forward(np.array([-np.log10(level)]))[0])
    axis.axhline(line, color="#444444", lw=0.9, ls="--")
    axis.annotate(
        power_text(level), (1.0, line), xycoords=("axes fraction", "data"), xytext=(3, 0), textcoords="offset points",
        fontsize=7, va="center", annotation_clip=False,
    )  # fmt: skip
    ticks = heights.ticks()
    axis.set_yticks(heights.forward(ticks), [f"{t:g}" for t in ticks])
    axis.set_xlim(-reach, reach)
    axis.set_ylim(0.0, float(((lower + 1.2 * _LINE) / tall).max(initial=1.04 * top)))
    axis.set_xlabel(f"effect ({unit})")
    axis.set_ylabel("−log₁₀ p" + ("  (logarithmic above 20)" if heights.broken else ""))
    axis.set_title(title, fontsize=10, loc="left")
    if beyond.any():
        axis.legend(
            frameon=False, fontsize=8, loc="lower right", bbox_to_anchor=(1.0, 1.0), ncols=2, borderaxespad=0.0,
            handletextpad=0.1, columnspacing=1.0,
        )  # fmt: skip
    save_figure(figure, path)


def draw_components(
    remaining: Float64[np.ndarray, " components"],
    threshold: Float64[np.ndarray, " some"],
    number: int,
    path: Path,
) -> None:
    """Draw each component's share of the variance left, beside that in data without components."""
    figure, axes = new_figure(width=5.2, height=3.6)
    axis = axes[0, 0]
    most = min(remaining.size, max(2 * number, 12))
    place = np.arange(1, most + 1)
    kept = place <= number
    axis.scatter(place[kept], 100 * remaining[:most][kept], s=28, color=BLUE, label=f"{number} surrogates", zorder=3)
    axis.scatter(place[~kept], 100 * remaining[:most][~kept], s=28, color="#b8bec5", label="left", zorder=3)
    if threshold.size:
        reach = min(threshold.size, most)
        axis.plot(
            place[:reach], 100 * threshold[:reach], "_-", color=ORANGE, lw=1.4, ms=12, label="95 % without components"
        )
    axis.set_ylim(bottom=0.0)
    axis.xaxis.get_major_locator().set_params(integer=True)
    axis.set_xlabel("component")
    axis.set_ylabel("share of the variance left (%)")
    axis.legend(frameon=False, fontsize=8)
    save_figure(figure, path)
