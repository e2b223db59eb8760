"""``brainlocus run`` and ``brainlocus demo``."""

from pathlib import Path
from typing import Any

import click

from brainlocus.cli.common import common_options, run_options

__all__ = ["demo", "run"]


@click.command()
@click.argument("study", type=click.Path(path_type=Path), required=False)
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the results.")
@click.option("--only", multiple=True, metavar="STEP", help="Run only this step (may be given again).")
@click.option("--dry-run", is_flag=True, help="Print the steps, what each reads, writes and needs, and stop.")
@click.option("--schema", is_flag=True, help="Print the JSON schema of STUDY.toml, for editors, and stop.")
@common_options
def run(study: Path | None, out: Path | None, **values: Any) -> None:
    """Run the study that STUDY.toml describes."""
    import json

    from brainlocus.pipeline.run_study import run_study
    from brainlocus.pipeline.study import study_schema

    if values.pop("schema"):
        click.echo(json.dumps(study_schema(), indent=1))
        return
    if study is None or out is None:
        raise click.UsageError("Give STUDY.toml and --out DIR.")
    only, dry_run = values.pop("only"), values.pop("dry_run")
    options = run_options(values)
    if dry_run:
        _print_plan(study, out, options)
        return
    failed = 0
    for item, outcome in run_study(study, out, options, only=only):
        state = "unchanged" if outcome.skipped else f"{outcome.manifest.seconds:.1f} s"
        first, *others = outcome.result.summary or ("",)
        click.echo(f"{item.key:12} {state:>10}  {first}")
        for line in others:
            click.echo(f"{'':12} {'':>10}  {line}")
        failed += outcome.result.n_failed
    _print_portal(out / "store")
    if failed:
        click.echo(f"{failed} items have no result; see the status columns.", err=True)
        raise SystemExit(3)


def _print_plan(study: Path, out: Path, options: Any) -> None:
    from rich.console import Console
    from rich.table import Table

    from brainlocus.pipeline.run_study import plan_study
    from brainlocus.pipeline.study import load_study

    memory = options.resolved().memory_bytes
    table = Table("Step", "Reads", "Writes", "Memory", "Time")
    for item in plan_study(load_study(study), out):
        estimate = item.estimate(memory)
        needs = (f"{estimate.peak_bytes / 2**20:.0f} MiB", f"{estimate.seconds:.0f} s") if estimate else ("-", "-")
        reads = "\n".join(str(p) for p in item.reads)
        table.add_row(f"[bold]{item.key}[/bold]\n{item.step.name}", reads, str(item.out), *needs)
    console = Console(width=160)
    console.print(table)
    console.print("Memory and time are estimates from the inputs; '-' where an input is still to be made.")


def _print_portal(store: Path) -> None:
    if store.exists():
        click.echo(f"\nTo look at the results:\n  .venv/bin/brainlocus serve {store}\nand open http://127.0.0.1:8750/")


@click.command()
@click.option(
    "--out", type=click.Path(path_type=Path), default=Path("demo"), show_default=True, help="Folder to write."
)
@click.option("--size", type=click.Choice(["small", "medium"]), default="small", show_default=True, help="How large.")
@common_options
def demo(out: Path, size: str, **values: Any) -> None:
    """Simulate a cohort, run the whole study, and print planted vs found."""
    from rich.console import Console
    from rich.table import Table

    from brainlocus.pipeline.demo import run_demo

    findings = run_demo(out, size, run_options(values))
    table = Table("Figure", "Planted", "Found", "Expected", "", title="Planted vs found")
    for finding in findings:
        verdict = "[green]ok[/green]" if finding.ok else "[bold red]OUTSIDE[/bold red]"
        table.add_row(finding.figure, finding.planted, finding.found, finding.band, verdict)
    Console(width=140).print(table)
    _print_portal(out / "results" / "store")
    if not all(finding.ok for finding in findings):
        click.echo("A figure is outside its band.", err=True)
        raise SystemExit(3)
