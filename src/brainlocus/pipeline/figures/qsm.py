"""Quality pages of susceptibility mapping: one a scan, one a cohort; each a single file."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32

from brainlocus.core import GradientEcho, Mask, ResultTable, Volume
from brainlocus.images.qsm import QsmMaps
from brainlocus.pipeline.figures.canvas import BLUE, GREY, ORANGE, new_figure
from brainlocus.pipeline.figures.page import Facts, Flags, Page, Picture, Table, png_bytes, render_page
from brainlocus.pipeline.figures.slices import histogram, mosaic

__all__ = ["draw_cohort_page", "draw_scan_page"]

CHI_WINDOW_PPM = (-0.1, 0.2)
LOCAL_WINDOW_PPM = (-0.05, 0.05)
TOTAL_WINDOW_PPM = (-1.0, 1.0)
RESIDUAL_WINDOW_PPM = (-0.01, 0.01)
T2STAR_WINDOW_S = (0.0, 0.1)
GRADIENT_WINDOW_HZ = (-20.0, 20.0)

_COUNTS = {
    "brain_voxels": "Voxels of the brain mask",
    "share_reliable": "Share with reliable phase (mask 2)",
    "mask_voxels": "Voxels with a susceptibility (mask 3)",
    "combination_quality": "Agreement of the coils (Q)",
    "field_noise_ppb": "Noise of the field, ppb (median)",
    "residual_wraps": "Neighbours that differ by more than pi after unwrapping",
    "residual_ppb": "Field that the map does not explain, ppb (root mean square)",
    "chi_sd_ppb": "Standard deviation of susceptibility, ppb",
    "whole_brain_ppb": "Mean over mask 3 before referencing, ppb",
    "reference_ppb": "Reference value, ppb",
    "reference_sd_ppb": "Standard deviation in the reference region, ppb",
    "reference_voxels": "Voxels of the reference region",
    "t2star_median_ms": "Median T2* of the brain, ms",
    "gradient_median_hz": "Median through-slice gradient, Hz a slice",
    "background_iterations": "Iterations of the background removal",
    "inversion_iterations": "Iterations of the inversion",
    "not_finite": "Voxels that were not finite",
}


def draw_scan_page(
    name: str,
    maps: QsmMaps,
    series: GradientEcho,
    rows: ResultTable | None,
    *,
    counts: Mapping[str, float],
    fail: Sequence[str],
    warn: Sequence[str],
    made_with: Mapping[str, object],
) -> str:
    """Return the HTML of a scan's quality page.

    Parameters
    ----------
    rows
        Measures of regions; None without a segmentation.
    fail, warn
        Flags, worst first.
    made_with
        Settings and inputs, for the last table.
    """
    acquisition = maps.acquisition
    x, y, z = acquisition.shape
    facts = {
        "Echo times": ", ".join(f"{1e3 * t:.2f} ms" for t in acquisition.echo_time_s),
        "Field strength": f"{acquisition.field_strength_t:g} T ({acquisition.hz_per_ppm:.2f} Hz per ppm)",
        "Matrix": f"{x} x {y} x {z}",
        "Voxel": " x ".join(f"{h:.2f}" for h in acquisition.voxel_size_mm) + " mm",
        "Main field along voxel axes": ", ".join(f"{b:.3f}" for b in acquisition.b0_direction),
        "Reference": maps.reference_name,
    }
    numbers = {text: counts[key] for key, text in _COUNTS.items() if key in counts}
    parts: list[Any] = [
        Flags(tuple(fail), tuple(warn)),
        Facts("Acquisition", facts),
        Facts("Numbers", numbers),
        *_pictures(maps, series),
    ]
    if rows is not None and len(rows):
        parts += _regions(rows)
    parts.append(Facts("Made with", dict(made_with)))
    return render_page(Page(f"Susceptibility map: {name}", "Neurological convention; windows are fixed.", tuple(parts)))


def _pictures(maps: QsmMaps, series: GradientEcho) -> list[Picture]:
    affine = maps.acquisition.grid.affine
    brain, mask = Mask(maps.brain, affine), Mask(maps.mask, affine)

    def shown(data: Float[np.ndarray, "x y z"], quantity: str, unit: str, **options: Any) -> bytes:
        return png_bytes(mosaic(Volume(data, affine, quantity, unit), **options))

    def within(data: Float32[np.ndarray, "x y z"], inside: Bool[np.ndarray, "x y z"]) -> Float32[np.ndarray, "x y z"]:
        return np.where(inside, data, np.float32(np.nan))  # black, rather than the grey of 0

    masks = {"brain mask": brain, "reliable phase": Mask(maps.reliable, affine), "susceptibility": mask}
    region = Mask(maps.reference_region, affine)
    outlines = {"": mask, f"reference: {maps.reference_name}": region} if region.data.any() else mask
    referenced = maps.reference is not None and maps.reference.status == "ok"
    chi, which = (maps.referenced_ppm, "") if referenced else (maps.chi_ppm, ", not referenced")
    pictures = [
        Picture(
            "Magnitude and masks",
            shown(series.magnitude[0], "magnitude", "", mask=masks),
            "First echo. The masks should follow the brain and leave out air above the sinuses and ears.",
        ),
        Picture(
            "Reliability of the phase",
            shown(maps.reliability.min(axis=0), "phase_reliability", "", window=(0.0, 1.0), mask=mask),
            "Least of all echoes; dark where the phase varies sharply.",
        ),
        Picture(
            "Total field",
            shown(
                within(maps.total_field.field_ppm, maps.reliable),
                "total_field",
                "ppm",
                window=TOTAL_WINDOW_PPM,
                mask=mask,
            ),
            "Smooth but for veins and nuclei; jumps are unwrapping errors.",
        ),
        Picture(
            "Local field",
            shown(within(maps.local_field_ppm, maps.mask), "local_field", "ppm", window=LOCAL_WINDOW_PPM),
            "No broad shades near the edge: those are background that was left.",
        ),
        Picture(
            f"Susceptibility{which}",
            shown(within(chi, maps.mask), "susceptibility", "ppm", window=CHI_WINDOW_PPM, mask=outlines),
            "Deep grey matter and veins bright, white matter dark, no streaks.",
        ),
        Picture(
            "Field that the map does not explain",
            shown(within(maps.residual_ppm, maps.mask), "residual_field", "ppm", window=RESIDUAL_WINDOW_PPM),
            "Noise where all is well; structure shows vessels, motion or too much regularisation.",
        ),
    ]
    if maps.t2star_s is not None:
        picture = shown(within(maps.t2star_s, maps.brain), "T2star", "s", window=T2STAR_WINDOW_S)
        pictures.append(Picture("T2*", picture, "Black where the signal does not fall from echo to echo."))
    if maps.gradient_hz is not None:
        picture = shown(
            within(maps.gradient_hz, maps.brain),
            "through_slice_gradient",
            "Hz",
            window=GRADIENT_WINDOW_HZ,
            mask=mask,
            colours="RdBu_r",
        )
        pictures.append(
            Picture(
                "Through-slice field gradient", picture, "Hz from slice to slice; T2* is too short where it is large."
            )
        )
    figure = histogram(chi[maps.mask], label="susceptibility (ppm)", window=(-0.3, 0.3), logarithmic=True)
    pictures.append(Picture("Distribution of susceptibility", png_bytes(figure), "Voxels of mask 3."))
    figure = histogram(maps.reliability[:, maps.brain], label="phase reliability", window=(0.0, 1.0), logarithmic=True)
    pictures.append(Picture("Distribution of reliability", png_bytes(figure), "All echoes, voxels of the brain mask."))
    return pictures


def _regions(rows: ResultTable) -> list[Any]:
    chosen = np.flatnonzero(rows["measure"] == "QSM")
    names = [str(n).replace("_", " ") for n in rows["region"][chosen]]
    ppb = 1e3 * rows["median"][chosen]
    spread = 1e3 * rows["mad"][chosen]
    figure, axes = new_figure(width=7.0, height=0.28 * len(names) + 1.0)
    axis = axes[0, 0]
    place = np.arange(len(names))[::-1]
    known = np.isfinite(ppb)
    axis.barh(place[known], ppb[known], xerr=spread[known], color=BLUE, ecolor=GREY)
    axis.axvline(0, color=GREY, linewidth=0.8)
    axis.set_yticks(place, names)
    axis.set_xlabel("susceptibility (ppb): median, bars one median absolute deviation")
    table = [
        (names[k], int(rows["n_voxels"][row]), float(ppb[k]), float(spread[k]), str(rows["status"][row]))
        for k, row in enumerate(chosen)
    ]
    return [
        Picture("Regions", png_bytes(figure), "Eroded in the plane of the slices."),
        Table("Measures of regions", ("Region", "Voxels", "Median (ppb)", "MAD (ppb)", "Status"), table),
    ]


def draw_cohort_page(
    scans: Sequence[Mapping[str, Any]], columns: Mapping[str, str], outliers: Mapping[str, Sequence[str]]
) -> str:
    """Return the HTML of a cohort's quality page.

    Parameters
    ----------
    scans
        One mapping a scan: ``scan``, ``status``, ``reason``, ``page`` and numbers.
    columns
        Number to its title: what is compared between scans.
    outliers
        Scan to the numbers in which it is far from the others.
    """
    bad = [f"{s['scan']}: {s['reason']}" for s in scans if s["status"] == "failed"]
    warn = [f"{s['scan']}: {s['reason']}" for s in scans if s["status"] == "check"]
    warn += [f"{scan}: unusual {', '.join(columns[c] for c in found)}" for scan, found in outliers.items()]
    rows = [
        (
            (s["scan"], s["page"]) if s["page"] else s["scan"],
            s["status"],
            *(float(s.get(c, float("nan"))) for c in columns),
        )
        for s in scans
    ]
    done = sum(s["status"] != "failed" for s in scans)
    parts: list[Any] = [Flags(tuple(bad), tuple(warn))]
    if done > 1:
        figure = _distributions(scans, columns, outliers)
        parts.append(Picture("Distribution over scans", png_bytes(figure), "Orange: more than 6 MAD from the median."))
    parts.append(Table("Scans", ("Scan", "Status", *columns.values()), rows))
    return render_page(
        Page("Susceptibility mapping: quality of the cohort", f"{done} of {len(scans)} scans done.", tuple(parts))
    )


def _distributions(
    scans: Sequence[Mapping[str, Any]], columns: Mapping[str, str], outliers: Mapping[str, Sequence[str]]
) -> Any:
    shown = [c for c in columns if sum(c in s for s in scans) > 1]
    across = min(4, max(len(shown), 1))
    figure, axes = new_figure(across, -(-len(shown) // across) or 1, width=3.0, height=2.0)
    for axis in axes.ravel()[len(shown) :]:
        axis.set_visible(False)
    for axis, name in zip(axes.ravel(), shown, strict=False):
        values = np.array([float(s.get(name, np.nan)) for s in scans])
        unusual = np.array([name in outliers.get(s["scan"], ()) for s in scans])
        # A fixed spread by rank in the list, so that points of equal value can be told apart.
        height = np.linspace(0, 1, len(scans))
        axis.plot(values[~unusual], height[~unusual], "o", color=BLUE, markersize=3, alpha=0.6)
        axis.plot(values[unusual], height[unusual], "o", color=ORANGE, markersize=5)
        axis.set_yticks([])
        axis.set_xlabel(columns[name], fontsize=8)
        axis.tick_params(labelsize=8)
        axis.locator_params(axis="x", nbins=4)
        axis.ticklabel_format(axis="x", useOffset=False)
    return figure
