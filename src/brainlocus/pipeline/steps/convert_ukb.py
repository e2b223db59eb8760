"""``qsm convert-ukb``: bulk zips of UK Biobank to a BIDS dataset that grows."""

from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from brainlocus.io.ukb import convert_visit
from brainlocus.io.ukb_dataset import Conversion, prepare_ukb_dataset, write_ukb_tables
from brainlocus.io.ukb_zip import Visit, find_visits
from brainlocus.pipeline.config import InputTree, Positional, StepConfig
from brainlocus.pipeline.step import Context, Step, StepResult

__all__ = ["QSM_CONVERT_UKB", "QsmConvertUkbConfig"]

_SHOWN = 3
"""Failures that are named on the terminal; the table has all."""


class QsmConvertUkbConfig(StepConfig):
    """Settings of ``qsm convert-ukb``."""

    zips: Annotated[InputTree, Positional()] = Field(
        description="A zip <eid>_20251_2_0.zip or <eid>_26301_2_0.zip, or a folder of them (searched below too)"
    )
    structural: bool = Field(
        False, description="Also take masks, segmentations and warps of the T1 from zips of fields 20252 and 20253"
    )
    channels: bool = Field(False, description="Also write single coils where the zips have them")


@dataclass(frozen=True, slots=True)
class _Task:
    visit: Visit
    out: Path
    work: Path
    channels: bool


def _convert(task: _Task) -> Conversion:
    return convert_visit(task.visit, task.out, task.work, channels=task.channels)


def convert_ukb(config: QsmConvertUkbConfig, out: Path, context: Context) -> StepResult:
    """Convert every visit, each as a whole; visits converted before from the same zips are left."""
    visits, others = find_visits(config.zips, structural=config.structural)
    work = context.shards
    prepare_ukb_dataset(out)
    work.mkdir(parents=True, exist_ok=True)
    tasks = [_Task(visit, out, work, config.channels) for visit in visits]
    try:
        done = context.executor.map(_convert, tasks)
        rows = list(context.progress.track(done, "Converting", len(tasks)))
    finally:
        # Not empty, or gone: another run adds to the same dataset.
        with suppress(OSError):
            work.rmdir()
    write_ukb_tables(out, rows)
    by_status = {status: [row for row in rows if row.status == status] for status in ("done", "present", "failed")}
    failed = by_status["failed"]
    counts = {
        "visits": len(rows),
        "participants": len({row.participant_id for row in rows}),
        "converted": len(by_status["done"]),
        "present": len(by_status["present"]),
        "failed": len(failed),
        "zips_left_aside": others,
    }
    summary = [f"{len(by_status['done'])} of {len(rows)} visits converted, {len(by_status['present'])} were there"]
    summary += [f"{row.participant_id} {row.session_id}: {row.message}" for row in failed[:_SHOWN]]
    if len(failed) > _SHOWN:
        summary.append(f"{len(failed) - _SHOWN} more failed; see derivatives/ukb/conversion.tsv")
    return StepResult(counts, n_failed=len(failed), summary=tuple(summary))


QSM_CONVERT_UKB = Step(
    "qsm convert-ukb",
    "Convert UK Biobank zips of susceptibility-weighted MRI to BIDS.",
    QsmConvertUkbConfig,
    convert_ukb,
    out="derivatives",
    out_positional=True,
)
