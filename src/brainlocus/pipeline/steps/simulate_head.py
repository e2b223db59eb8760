"""``simulate head``: gradient-echo scans of heads as a BIDS dataset, with the truth as derivatives.

Written to OUT::

    dataset_description.json, participants.tsv
    sub-01[/ses-1]/anat/sub-01[_ses-1]_echo-1_part-{mag,phase}[_coil-01]_MEGRE.{nii.gz,json}
    derivatives/truth/dataset_description.json
    derivatives/truth/sub-01/anat/sub-01_Chimap.nii.gz                  ppm against water, 0 outside the brain
                                  sub-01_R2starmap.nii.gz               1/s
                                  sub-01_desc-{total,local}_fieldmap.nii.gz    Hz
                                  sub-01_desc-brain_mask.nii.gz
                                  sub-01_dseg.{nii.gz,json,tsv}         tissues and nuclei, with their names

Each person is a task of the executor. The first has the command's seed, so that it is ``simulate_head(grid, seed=K)``;
the seeds of the others are spawned from it and written to ``participants.tsv``.
"""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import Field, field_validator

from brainlocus.core import Mask, ResourceError, Volume
from brainlocus.core.gradient_echo import Acquisition
from brainlocus.io.nifti import write_dataset_description, write_derivative
from brainlocus.pipeline.config import CommaFloats, StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult
from brainlocus.simulate import (
    HEAD_PRESETS,
    HeadSettings,
    SimulatedHead,
    head_peak_bytes,
    head_settings,
    simulate_head,
)

__all__ = ["SIMULATE_HEAD", "SimulateHeadConfig"]


class SimulateHeadConfig(StepConfig):
    """Settings of ``simulate head``."""

    grid: str = Field("2mm", description=f"Image grid: {', '.join(HEAD_PRESETS)}")
    participants: int = Field(1, ge=1, le=99_999, description="Number of people")
    sessions: int = Field(1, ge=1, le=99, description="Scans of each person: the same truth, other noise")
    channels: int = Field(0, ge=0, le=256, description="Receive coils, one file each; 0 writes the combined images")
    echo_times: CommaFloats = Field((0.0094, 0.020), description="Echo times, in seconds", min_length=1)
    field_strength: float = Field(3.0, gt=0, lt=25, description="Main field, in tesla")
    snr: float = Field(80.0, gt=0, description="Brightest first-echo signal over the noise of its real part")
    spread: float = Field(
        0.0, ge=0, le=0.5, description="Standard deviation of a nucleus' susceptibility between people, as a share"
    )
    tilt: float = Field(0.0, ge=-60, le=60, description="Angle of oblique slices about the left-right axis, in degrees")
    calcification: bool = Field(False, description="Put a calcification of -3 ppm into the white matter")

    @field_validator("grid")
    @classmethod
    def _known_grid(cls, value: str) -> str:
        head_settings(value)
        return value

    def head(self) -> HeadSettings:
        """Return the settings of one scan."""
        return replace(
            head_settings(self.grid),
            echo_time_s=self.echo_times,
            field_strength_t=self.field_strength,
            snr=self.snr,
            spread=self.spread,
            tilt_degrees=self.tilt,
            calcification=self.calcification,
        )


@dataclass(frozen=True, slots=True)
class _Task:
    participant: str
    seed: int
    sessions: int
    channels: int
    settings: HeadSettings
    root: Path
    workers: int


def _write_participant(task: _Task) -> int:
    """Write all scans of one person and their truth; return the voxels of the brain."""
    voxels = 0
    for scan in range(task.sessions):
        head = simulate_head(task.settings, seed=task.seed, scan=scan, workers=task.workers)
        if scan == 0:
            _write_truth(head, task.root / "derivatives" / "truth" / task.participant / "anat", task.participant)
            voxels = int(head.brain_mask.sum())
        session = [] if task.sessions == 1 else [f"ses-{scan + 1}"]
        folder = task.root.joinpath(task.participant, *session, "anat")
        folder.mkdir(parents=True)
        stem = "_".join([task.participant, *session])
        if task.channels:
            source = head.channels(task.channels)
            for channel in range(task.channels):
                coil = source.read(channel)
                _write_echoes(
                    coil.magnitude, coil.phase_rad, head.acquisition, folder, stem, f"_coil-{channel + 1:02d}"
                )
        else:
            series = head.series
            _write_echoes(series.magnitude, series.phase_rad, head.acquisition, folder, stem, "")
    return voxels


def _write_echoes(
    magnitude: np.ndarray, phase_rad: np.ndarray, acquisition: Acquisition, folder: Path, stem: str, coil: str
) -> None:
    for echo, time in enumerate(acquisition.echo_time_s):
        common = {"EchoTime": time, "EchoNumber": echo + 1, "MagneticFieldStrength": acquisition.field_strength_t}
        for part, data, quantity, unit in (
            ("mag", magnitude[echo], "magnitude", "arbitrary"),
            ("phase", phase_rad[echo], "phase", "rad"),
        ):
            path = folder / f"{stem}_echo-{echo + 1}_part-{part}{coil}_MEGRE.nii.gz"
            write_derivative(Volume(data, acquisition.grid.affine, quantity, unit), path, common)


def _write_truth(head: SimulatedHead, folder: Path, stem: str) -> None:
    folder.mkdir(parents=True)
    affine, hz = head.acquisition.grid.affine, head.acquisition.hz_per_ppm
    maps: list[tuple[str, np.ndarray, str, dict[str, Any]]] = [
        ("Chimap", head.chi_ppm, "ppm", {"Reference": "water; 0 outside the brain"}),
        ("R2starmap", head.r2star, "1/s", {}),
        ("desc-total_fieldmap", head.total_field_ppm * np.float32(hz), "Hz", {"HzPerPpm": hz}),
        ("desc-local_fieldmap", head.local_field_ppm * np.float32(hz), "Hz", {"HzPerPpm": hz}),
    ]
    for name, data, unit, more in maps:
        path = folder / f"{stem}_{name}.nii.gz"
        write_derivative(Volume(data, affine, name, unit), path, {**more, "NoiseSigma": head.sigma, "Seed": head.seed})
    write_derivative(Mask(head.brain_mask, affine), folder / f"{stem}_desc-brain_mask.nii.gz", {"Type": "Brain"})
    names = {str(label): name for label, name in head.labels.names.items()}
    write_derivative(head.labels, folder / f"{stem}_dseg.nii.gz", {"labels": names})
    rows = "".join(f"{label}\t{name}\n" for label, name in head.labels.names.items())
    (folder / f"{stem}_dseg.tsv").write_text(f"index\tname\n{rows}", encoding="utf-8")


def _describe(folder: Path, name: str, kind: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    write_dataset_description(folder, name=name, dataset_type=kind)


def _person_seed(seed: int, person: int) -> int:
    if person == 0:
        return seed
    return int(np.random.SeedSequence(seed, spawn_key=(person,)).generate_state(1)[0])


def run_simulate_head(config: SimulateHeadConfig, out: Path, context: Context) -> StepResult:
    """Simulate scans into the folder `out`."""
    settings = config.head()
    at_once = min(context.executor.workers, config.participants)
    needed = at_once * head_peak_bytes(settings)
    if needed > context.memory_bytes:
        raise ResourceError(
            f"Simulating {at_once} heads at a time on the grid {config.grid!r} needs {needed / 2**20:.0f} MiB, "
            f"{context.memory_bytes / 2**20:.0f} MiB are given. Raise --memory, "
            "take fewer --threads or a coarser --grid."
        )
    width = max(2, len(str(config.participants)))
    names = [f"sub-{person + 1:0{width}d}" for person in range(config.participants)]
    seeds = [_person_seed(context.seed, person) for person in range(config.participants)]
    _describe(out, "brainlocus simulated heads", "raw")
    _describe(out / "derivatives" / "truth", "truth of the simulated heads", "derivative")
    rows = "".join(f"{name}\t{seed}\n" for name, seed in zip(names, seeds, strict=True))
    (out / "participants.tsv").write_text(f"participant_id\tseed\n{rows}", encoding="utf-8")
    workers = max(1, context.threads // at_once)
    tasks = [
        _Task(name, seed, config.sessions, config.channels, settings, out, workers)
        for name, seed in zip(names, seeds, strict=True)
    ]
    done = context.progress.track(
        context.executor.map(_write_participant, tasks), "Simulating heads", config.participants
    )
    voxels = list(done)
    counts = {"participants": len(voxels), "sessions": config.sessions, "brain_voxels": voxels[0]}
    x, y, z = settings.shape
    return StepResult(counts, summary=(f"{len(voxels)} heads of {x} x {y} x {z} voxels, {voxels[0]} in the brain",))


SIMULATE_HEAD = Step(
    "simulate head",
    "Simulate gradient-echo scans of heads with planted susceptibility.",
    SimulateHeadConfig,
    run_simulate_head,
    out="folder",
    out_positional=True,
)
