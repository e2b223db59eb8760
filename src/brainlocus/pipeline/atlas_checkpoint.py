"""What ``atlas fit --batch-size`` keeps after every epoch, and whether an interrupted run may go on from it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from brainlocus.core import Mask, SchemaError
from brainlocus.images.atlas import ActiveSet, EpochState, Weights
from brainlocus.io import ImageList, atomic_path, digest_input
from brainlocus.pipeline.step import KeptWorkError

__all__ = ["images_digest", "matrix_digest", "read_checkpoint", "refuse_other_images", "write_checkpoint"]


def images_digest(images: ImageList) -> str:
    """Return the SHA-256 over the ids and the contents of the images, in order; of an array, and the places in it."""
    found = {path: digest_input(path).sha256 for path in dict.fromkeys(images.paths)}
    parts = [f"{name}\t{found[path]}" for name, path in zip(images.samples.ids, images.paths, strict=True)]
    if images.numbers is not None:
        parts = [f"{part}\t{number}" for part, number in zip(parts, images.numbers, strict=True)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def matrix_digest(images: ImageList, mask: Mask) -> str:
    """Return what names the voxel-major matrix of some images in a mask."""
    inside = hashlib.sha256(np.packbits(mask.data).tobytes()).hexdigest()
    return f"{images_digest(images)} {inside}"


def refuse_other_images(found: str, wanted: str) -> None:
    """Refuse to go on with images that were read by an interrupted run and have changed since.

    Raises
    ------
    KeptWorkError
        The contents, the list or the order of the images differ.
    """
    if found != wanted:
        raise KeptWorkError(
            "--resume: expected the images that the interrupted run read, found that their list or contents have "
            "changed. Restore them, or run without --resume to start anew."
        )


def write_checkpoint(state: EpochState, path: Path, *, digest: str) -> None:
    """Write a state, whole or not at all.

    Parameters
    ----------
    digest
        Names what the state belongs to: images, mask and settings.
    """
    arrays: dict[str, Any] = {
        **_arrays("weights", state.weights),
        **_arrays("best", state.best),
        "best_loss": state.best_loss,
        "epoch": state.epoch,
        "missed": state.missed,
        "waited": state.waited,
        "losses": np.array(state.losses),
        "changes": np.array(state.changes),
        "generator": np.array(json.dumps(state.generator)),
        "digest": np.array(digest),
    }
    with atomic_path(path) as partial, partial.open("wb") as stream:
        np.savez(stream, **arrays)


def _arrays(name: str, weights: Weights) -> dict[str, np.ndarray]:
    if not isinstance(weights, ActiveSet):
        return {name: weights}
    return {name: weights.weights, f"{name}_components": weights.components, f"{name}_families": weights.families}


def _weights(name: str, stored: Mapping[str, np.ndarray]) -> Weights:
    if f"{name}_components" not in stored:
        return stored[name]
    return ActiveSet(stored[f"{name}_components"], stored[name], stored[f"{name}_families"])


def read_checkpoint(path: Path, *, digest: str) -> EpochState | None:
    """Return the state that an interrupted run left, if it left one.

    Raises
    ------
    KeptWorkError
        It belongs to other images, another mask or other settings.
    """
    if not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as stored:
            if str(stored["digest"]) != digest:
                raise KeptWorkError(
                    "--resume: expected what the interrupted run kept after its last epoch, found that images, mask, "
                    "settings or the coarser scale have changed since. Restore them, or run without --resume."
                )
            generator: dict[str, Any] = json.loads(str(stored["generator"]))
            return EpochState(
                weights=_weights("weights", stored),
                best=_weights("best", stored),
                best_loss=float(stored["best_loss"]),
                epoch=int(stored["epoch"]),
                waited=int(stored["waited"]),
                losses=tuple(stored["losses"].tolist()),
                changes=tuple(stored["changes"].tolist()),
                generator=generator,
                missed=int(stored["missed"]),
            )
    except (OSError, ValueError, KeyError) as error:
        raise SchemaError(
            f"{path}: expected a checkpoint of atlas fit, cannot read it. Run without --resume."
        ) from error
