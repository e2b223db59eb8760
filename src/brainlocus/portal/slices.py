"""Brain slices drawn by the server, for browsers without WebGL 2."""

import struct
import zlib
from collections.abc import Mapping
from typing import Literal

import numpy as np
from jaxtyping import Float, Int, UInt8

__all__ = ["diverging", "draw_slice", "encode_png", "identity_colours", "sequential"]

Axis = Literal["x", "y", "z"]
MAX_SIDE = 512

_DIVERGING = np.array(
    [[0, 40, 130], [38, 118, 206], [150, 190, 232], [236, 236, 236], [247, 190, 120], [224, 120, 20], [140, 55, 0]],
    float,
)
"""Blue to orange through grey: told apart with every common colour-vision deficiency."""
_SEQUENTIAL = np.array([[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]], float)
"""Five stops of viridis (van der Walt & Smith 2015)."""


def _ramp(stops: Float[np.ndarray, "stops 3"], t: Float[np.ndarray, " values"]) -> Float[np.ndarray, "values 3"]:
    at = np.linspace(0.0, 1.0, len(stops))
    return np.stack([np.interp(t, at, stops[:, channel]) for channel in range(3)], axis=-1)


def diverging(values: Float[np.ndarray, " values"], *, limit: float) -> Float[np.ndarray, "values 3"]:
    """Return colours of signed values; grey at 0, full colour at plus and minus `limit`."""
    return _ramp(_DIVERGING, np.clip(values / (2.0 * max(limit, 1e-12)) + 0.5, 0.0, 1.0))


def sequential(values: Float[np.ndarray, " values"], *, limit: float) -> Float[np.ndarray, "values 3"]:
    """Return colours of values from 0 to `limit`."""
    return _ramp(_SEQUENTIAL, np.clip(values / max(limit, 1e-12), 0.0, 1.0))


def identity_colours(labels: Int[np.ndarray, " values"]) -> Float[np.ndarray, "values 3"]:
    """Return one colour a label: hues a golden angle apart, at three lightnesses."""
    hue = (labels * 0.61803398875) % 1.0
    value = 0.62 + 0.16 * (labels % 3)
    angle = np.stack([(hue + shift) % 1.0 for shift in (0.0, 2 / 3, 1 / 3)], axis=-1)
    tent = np.clip(np.abs(angle * 6.0 - 3.0) - 1.0, 0.0, 1.0)
    return np.asarray(255.0 * value[:, None] * (1.0 - 0.6 * (1.0 - tent)))


def _take(data: Int[np.ndarray, "x y z"], axis: Axis, index: int) -> Int[np.ndarray, "rows columns"]:
    """Return a slice with up up: superior for x and y, anterior for z; left of the picture is left of the head."""
    number = {"x": 0, "y": 1, "z": 2}[axis]
    picked = np.take(data, min(max(index, 0), data.shape[number] - 1), axis=number)
    return np.asarray(picked.T[::-1])


def voxel_of(affine: Float[np.ndarray, "4 4"], axis: Axis, mm: float) -> int:
    """Return the slice index at a world coordinate, for axes along RAS+."""
    k = {"x": 0, "y": 1, "z": 2}[axis]
    return round(float((mm - affine[k, 3]) / affine[k, k]))


def _on_grid(
    image: tuple[Int[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]],
    base: tuple[Int[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]],
) -> Int[np.ndarray, "x y z"]:
    """Return an image's values at the voxels of another, 0 outside; both have axes along RAS+."""
    values, affine = image
    picks, inside = [], []
    for k in range(3):
        world = base[1][k, k] * np.arange(base[0].shape[k]) + base[1][k, 3]
        index = np.rint((world - affine[k, 3]) / affine[k, k]).astype(np.int64)
        inside.append((index >= 0) & (index < values.shape[k]))
        picks.append(np.clip(index, 0, values.shape[k] - 1))
    outside = ~(inside[0][:, None, None] & inside[1][None, :, None] & inside[2][None, None, :])
    return np.where(outside, 0, values[np.ix_(*picks)])


def draw_slice(
    template: tuple[Int[np.ndarray, "x y z"], Float[np.ndarray, "4 4"]] | None,
    overlay: tuple[Int[np.ndarray, "i j k"], Float[np.ndarray, "4 4"]] | None,
    *,
    axis: Axis,
    mm: float,
    colours: Mapping[int, tuple[float, float, float]] | None = None,
    opacity: float = 0.8,
) -> UInt8[np.ndarray, "height width 3"]:
    """Return one slice as RGB, the overlay's labels painted over the template.

    Parameters
    ----------
    template, overlay
        Values with axes along RAS+, and affine; at least one is given. The overlay may have another grid.
    colours
        Label to RGB in 0..255; labels that are absent stay unpainted.

    Raises
    ------
    ValueError
        Neither image is given.
    """
    base = template if template is not None else overlay
    if base is None:
        raise ValueError("A slice needs a template or an overlay.")
    grey = _take(base[0], axis, voxel_of(base[1], axis, mm)).astype(np.float64)
    rgb = np.repeat((grey if template is not None else np.zeros_like(grey))[..., None], 3, axis=-1)
    if overlay is not None and colours:
        labels = _take(_on_grid(overlay, base), axis, voxel_of(base[1], axis, mm))
        for label, colour in colours.items():
            here = labels == label
            rgb[here] = opacity * np.asarray(colour) + (1.0 - opacity) * rgb[here]
    factor = max(1, MAX_SIDE // max(grey.shape))
    small = np.clip(rgb, 0, 255).astype(np.uint8)
    return np.repeat(np.repeat(small, factor, axis=0), factor, axis=1)


def encode_png(rgb: UInt8[np.ndarray, "height width 3"]) -> bytes:
    """Return an RGB image as PNG (W3C PNG specification, third edition: IHDR, IDAT, IEND, filter 0)."""
    height, width, _ = rgb.shape
    rows = np.concatenate([np.zeros((height, 1), dtype=np.uint8), rgb.reshape(height, -1)], axis=1)

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(rows.tobytes(), 6)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
