"""Runs a step: checks, hashes, resumes, renames, records.

A run of a step that writes ``DIR/hits`` works in ``DIR/.hits.work``: finished shards, the key of the run, and the
output under construction. On success the output is renamed into place and ``DIR/hits.json`` written; bad input removes
the work folder, an interruption leaves it for ``--resume``.
"""

import errno
import hashlib
import json
import os
import platform
import shutil
import time
import uuid
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

from brainlocus._version import __version__
from brainlocus.core import InputFile, Manifest, ResourceError, SchemaError
from brainlocus.io import digest_files, digest_input, grm_files, replace_path, require_path
from brainlocus.io.regions import is_interval_file
from brainlocus.pipeline.config import StepConfig, input_fields, parameter_fields, tree_fields
from brainlocus.pipeline.executors import make_executor
from brainlocus.pipeline.memory import peak_memory_bytes
from brainlocus.pipeline.outputs import check_outputs, further_outputs, is_input_error, make_parents
from brainlocus.pipeline.progress import Progress
from brainlocus.pipeline.step import Context, KeptWorkError, Step, StepResult

__all__ = ["Outcome", "RunOptions", "execute", "is_current", "manifest_path", "parse_memory", "run_key"]

_LIBRARIES = ("numpy", "scipy", "numba", "pyarrow", "scikit-learn", "nibabel", "Pgenlib", "msprime")
_UNITS = {"": 1, "b": 1, "k": 10**3, "kb": 10**3, "kib": 2**10, "m": 10**6, "mb": 10**6, "mib": 2**20}
_UNITS |= {"g": 10**9, "gb": 10**9, "gib": 2**30, "t": 10**12, "tb": 10**12, "tib": 2**40}


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options that every command has."""

    threads: int = 0
    """0: all CPUs this process may use."""
    memory_bytes: int = 0
    """0: three quarters of what is free now."""
    seed: int = 0
    executor: str = "threads"
    resume: bool = False
    quiet: bool = False
    log: Path | None = None

    def resolved(self) -> "RunOptions":
        """Return the options with the defaults of this machine filled in."""
        threads = self.threads or _usable_cpus()
        memory = self.memory_bytes or int(0.75 * psutil.virtual_memory().available)
        return RunOptions(threads, memory, self.seed, self.executor, self.resume, self.quiet, self.log)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a run."""

    manifest: Manifest
    result: StepResult
    skipped: bool
    """The same result was already there."""

    @property
    def exit_code(self) -> int:
        """0 when everything has a result, 3 when some items have only a status."""
        return 3 if self.result.n_failed else 0


def _usable_cpus() -> int:
    """Return the CPUs this process may use; macOS and Windows only tell how many there are."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def parse_memory(text: str) -> int:
    """Return bytes: ``8GiB``, ``500MB``, ``1.5G`` or a plain number.

    Raises
    ------
    ValueError
        Another form.

    Examples
    --------
    >>> parse_memory("8GiB")
    8589934592
    """
    digits = text.strip().rstrip("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ ")
    unit = text.strip()[len(digits) :].strip().lower()
    try:
        amount = float(digits)
    except ValueError:
        amount = -1.0
    if unit not in _UNITS or amount <= 0:
        raise ValueError(f"--memory: expected a size such as 8GiB or 500MB, found {text!r}.")
    return int(amount * _UNITS[unit])


def manifest_path(out: Path) -> Path:
    """Return where the manifest of an output lies: ``out.json`` beside it."""
    return out.with_name(out.name + ".json")


def _inputs(config: StepConfig) -> list[InputFile]:
    found: list[InputFile] = []
    trees = tree_fields(type(config))
    for name in input_fields(type(config)):
        value = getattr(config, name)
        if value is None:
            continue
        for path in value if isinstance(value, tuple) else (value,):
            require_path(path, what=name)
            found.append(InputFile(str(path), 0, "") if name in trees else _digest(path))
    return found


def _digest(path: Path) -> InputFile:
    if path.suffix in {".bed", ".pgen", ".bgen"} and not is_interval_file(path):
        from brainlocus.io.genotypes import genotype_files

        return digest_files(path, genotype_files(path))
    if path.name.endswith(".grm.bin"):
        matrix, counts, ids = grm_files(path)
        return digest_files(path, sorted([matrix, ids, *([counts] if counts.is_file() else [])]))
    return digest_input(path)


def _parameters(config: StepConfig) -> dict[str, Any]:
    return config.model_dump(mode="json", include=set(parameter_fields(type(config))))


def run_key(step: str, parameters: dict[str, Any], inputs: list[InputFile], seed: int) -> str:
    """Return the SHA-256 that names a result: step, version, settings, seed and the contents of the inputs."""
    content = {
        "step": step,
        "version": __version__,
        "parameters": parameters,
        "inputs": [i.sha256 for i in inputs],
        "seed": seed,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _environment() -> dict[str, str]:
    found = {"python": platform.python_version(), "system": f"{platform.system()} {platform.machine()}"}
    for library in _LIBRARIES:
        try:
            found[library] = version(library)
        except PackageNotFoundError:
            continue
    return found


def _write_json(content: dict[str, Any], path: Path) -> None:
    path.write_text(json.dumps(content, indent=1, default=str) + "\n")


def _read_key(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _refuse_other(found: dict[str, Any], wanted: dict[str, Any], where: Path) -> None:
    """Say what differs between the run that left `where` and this one."""
    changed = [
        f"{name}: was {found.get('parameters', {}).get(name)!r}, now {value!r}"
        for name, value in wanted["parameters"].items()
        if found.get("parameters", {}).get(name) != value
    ]
    if found.get("version") != wanted["version"]:
        changed.append(f"brainlocus: was {found.get('version')}, now {wanted['version']}")
    if found.get("seed", wanted["seed"]) != wanted["seed"]:
        changed.append(f"--seed: was {found.get('seed')}, now {wanted['seed']}")
    changed = changed or ["the contents of the inputs"]
    raise SchemaError(
        f"--resume: {where} was made from other inputs or settings ({'; '.join(changed)}). "
        "Run without --resume to start anew, or give another --out."
    )


def _prepare_work(work: Path, out: Path, record: dict[str, Any], *, resume: bool, folder: bool) -> Path:
    """Return the name to write to inside a work folder that fits this run."""
    left = _read_key(work / "key.json")
    if resume and left:
        if left.get("key") != record["key"]:
            _refuse_other(left, record, work)
    else:
        shutil.rmtree(work, ignore_errors=True)
    target = work / out.name
    if target.is_dir():
        shutil.rmtree(target)
    for part in (target, *work.glob(f"{out.stem}.*")):
        part.unlink(missing_ok=True)
    (work / "shards").mkdir(parents=True, exist_ok=True)
    _write_json(record, work / "key.json")
    if folder:
        target.mkdir()
    return target


def _check_replaceable(out: Path, work: Path, kind: str) -> None:
    """Refuse to replace what brainlocus did not write."""
    if not out.exists() or manifest_path(out).exists() or work.exists():
        return
    if kind == "derivatives" and _is_dataset(out):
        return
    folder = kind in {"folder", "derivatives"}
    if folder and (not out.is_dir() or any(out.iterdir())):
        raise SchemaError(
            f"--out {out}: expected a new or empty folder, or one written by brainlocus (with "
            f"{manifest_path(out).name} beside it), found something else. Give another name."
        )


def _is_dataset(folder: Path) -> bool:
    """Return whether a folder is a BIDS dataset, or one that another run is just beginning: hidden files only."""
    if not folder.is_dir():
        return False
    return (folder / "dataset_description.json").is_file() or all(p.name.startswith(".") for p in folder.iterdir())


def is_current(step: Step[Any], config: StepConfig, out: Path, options: RunOptions) -> bool:
    """Return whether `out`, finished or interrupted, was made from these inputs and settings."""
    key = run_key(step.name, _parameters(config), _inputs(config), options.seed)
    left = _read_key(_work_folder(out) / "key.json") or _read_key(manifest_path(out))
    return left.get("key") == key


def _exists(out: Path, step: Step[Any]) -> bool:
    if step.out == "prefix":
        return any(path != manifest_path(out) for path in out.parent.glob(f"{out.name}.*"))
    return out.exists()


def _work_folder(out: Path) -> Path:
    return out.with_name(f".{out.name}.work")


def execute(step: Step[Any], config: StepConfig, out: Path, options: RunOptions) -> Outcome:
    """Run a step and return what became of it.

    Raises
    ------
    BrainlocusError
        Bad input: nothing was written.
    """
    options = options.resolved()
    started = time.time()
    inputs = _inputs(config)
    parameters = _parameters(config)
    key = run_key(step.name, parameters, inputs, options.seed)
    record = {"key": key, "step": step.name, "version": __version__, "parameters": parameters, "seed": options.seed}
    grows = step.out == "derivatives"
    # Runs that add to the same output at once, one subject each, must not meet in one work folder.
    work = out.with_name(f".{out.name}.{uuid.uuid4().hex}.work") if grows else _work_folder(out)
    done = _read_key(manifest_path(out))
    if options.resume and done and _exists(out, step) and not grows:
        if done.get("key") == key:
            return _skipped(done)
        if not work.exists():
            _refuse_other(done, record, out)
    _check_replaceable(out, work, step.out)
    check_outputs(step.out, config, out, earlier=done, interrupted=work.exists())
    new_folders = make_parents(out)
    result, target = (
        _run_growing(step, config, out, options, new_folders)
        if grows
        else _run_whole(step, config, out, options, record, new_folders)
    )
    manifest = Manifest(
        step=step.name,
        version=__version__,
        parameters={**parameters, "seed": options.seed},
        inputs=tuple(inputs),
        outputs=(str(out), *map(str, further_outputs(config).values())),
        counts=result.counts,
        seconds=round(time.time() - started, 3),
        peak_memory_bytes=peak_memory_bytes(),
        created=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(started)),
        environment=_environment(),
        key=key,
    )
    _finish(work, target, out, manifest, result, step.out)
    return Outcome(manifest, result, skipped=False)


def _context(options: RunOptions, shards: Path) -> Context:
    executor = make_executor(options.executor, threads=options.threads)
    progress = Progress(quiet=options.quiet, log=options.log)
    return Context(executor, options.memory_bytes, options.threads, options.seed, progress, shards, options.resume)


def _run_whole(
    step: Step[Any], config: StepConfig, out: Path, options: RunOptions, record: dict[str, Any], new_folders: list[Path]
) -> tuple[StepResult, Path]:
    """Run a step that writes its output anew; return its result and the output under its temporary name."""
    work = _work_folder(out)
    target = _prepare_work(work, out, record, resume=options.resume, folder=step.out == "folder")
    try:
        return step.run(config, target, _context(options, work / "shards")), target
    except BaseException as error:
        # A full disk, an interruption and a refusal to resume leave the finished parts; bad input leaves nothing.
        of_input = is_input_error(error) and not isinstance(error, (OSError, KeptWorkError))
        if of_input or not any((work / "shards").iterdir()):
            shutil.rmtree(work, ignore_errors=True)
            _remove_empty(new_folders)
        _explain_failure(error, out, kept=work.exists())
        raise


def _run_growing(
    step: Step[Any], config: StepConfig, out: Path, options: RunOptions, new_folders: list[Path]
) -> tuple[StepResult, Path]:
    """Run a step that adds to its output; what it has finished stays whatever happens next."""
    new = not out.exists()
    out.mkdir(exist_ok=True)
    try:
        return step.run(config, out, _context(options, out / ".work")), out
    except BaseException as error:
        # Only what is empty is removed: another run may have begun to add to it.
        if new and is_input_error(error):
            _remove_empty([out, *new_folders])
        _explain_failure(error, out, kept=any(out.glob("sub-*")) if out.exists() else False)
        raise


def _explain_failure(error: BaseException, out: Path, *, kept: bool) -> None:
    """Raise what the user can do about a worker that was killed or a full disk; return for any other error."""
    goes_on = " Finished parts are kept: --resume goes on from them." if kept else ""
    if isinstance(error, BrokenProcessPool):
        raise ResourceError(
            f"{out}: a worker process was ended from outside, likely because the machine ran out of memory. "
            f"Give less --memory or fewer --threads.{goes_on}"
        ) from error
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise ResourceError(
            f"{out}: expected room to write, found none on its disk (No space left on device). Free some and run "
            f"again.{goes_on}"
        ) from error


def _remove_empty(folders: list[Path]) -> None:
    for folder in folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()


def _finish(work: Path, target: Path, out: Path, manifest: Manifest, result: StepResult, kind: str) -> None:
    manifest_path(out).unlink(missing_ok=True)
    work.mkdir(exist_ok=True)
    if target.exists() and target != out:
        replace_path(target, out)
    companions = [*work.glob(f"{out.name}.*"), *(work.glob(f"{out.stem}.*") if kind == "genotypes" else ())]
    for part in sorted(set(companions) - {work / "key.json", work / "manifest.json"}):
        replace_path(part, out.with_name(part.name))
    # Times and memory differ from run to run and stand together, so that all else can be compared byte by byte.
    content = asdict(manifest)
    run = {name: content.pop(name) for name in ("created", "seconds", "peak_memory_bytes", "environment")}
    content = {**content, "n_failed": result.n_failed, "summary": list(result.summary)}
    content["seed"] = manifest.parameters["seed"]
    content["command"] = f"brainlocus {manifest.step}"
    partial = work / "manifest.json"
    _write_json({**content, "run": run}, partial)
    partial.replace(manifest_path(out))
    shutil.rmtree(work, ignore_errors=True)


def _skipped(done: dict[str, Any]) -> Outcome:
    run = done.get("run", {})
    manifest = Manifest(
        step=done["step"],
        version=done["version"],
        parameters=done["parameters"],
        inputs=tuple(InputFile(**i) for i in done["inputs"]),
        outputs=tuple(done["outputs"]),
        counts=done["counts"],
        seconds=run.get("seconds", 0.0),
        peak_memory_bytes=run.get("peak_memory_bytes", 0),
        created=run.get("created", ""),
        environment=run.get("environment", {}),
        key=done["key"],
    )
    result = StepResult(done["counts"], done.get("n_failed", 0), tuple(done.get("summary", ())))
    return Outcome(manifest, result, skipped=True)
