"""The ``brainlocus`` command.

Exit codes: 0 done; 1 a bug (with traceback); 2 bad usage or input (one message); 3 done, but some items failed;
130 interrupted.
"""

import gc
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import click

from brainlocus._version import __version__
from brainlocus.cli.datasets import fetch, list_datasets
from brainlocus.cli.studies import demo, run

__all__ = ["cli", "main"]

_GROUPS = {
    "simulate": "Cohorts with planted truth.",
    "datasets": "Public data by checksum, cached.",
    "qsm": "Quantitative susceptibility mapping.",
    "atlas": "Structural-covariance atlas from the maps of many people.",
    "idp": "Image-derived phenotypes.",
    "cohort": "Prepare and harmonise measures of people.",
    "associate": "Relate measures to phenotypes.",
    "multivariate": "Modes in which two tables vary together, judged on held-out people.",
    "signature": "Individual disease signatures (SPARE).",
    "genotypes": "Conversion, quality control, ancestry components, relationship matrices.",
    "gwas": "Genome-wide association of many traits at once.",
    "heritability": "Share of variance explained by the genotyped variants.",
    "loci": "Clumps and loci from association results.",
    "sumstats": "Summary statistics of any scan.",
    "twas": "Transcriptome-wide association, and what its results say.",
    "genes": "Sets of genes.",
    "store": "Results as a searchable, immutable store.",
}


class _StepGroup(click.Group):
    """A stage: lists its verbs from the registry and imports a step only when it is run or its help is asked for."""

    def _entries(self) -> dict[str, Any]:
        from brainlocus.pipeline.registry import STEPS

        prefix = f"{self.name} "
        return {name.removeprefix(prefix): entry for name, entry in STEPS.items() if name.startswith(prefix)}

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the verbs."""
        return sorted({*super().list_commands(ctx), *self._entries()})

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return the command of a verb."""
        if cmd_name in self._entries():
            from brainlocus.cli.options import command_from_step
            from brainlocus.pipeline.registry import load_step

            return command_from_step(load_step(f"{self.name} {cmd_name}"))
        return super().get_command(ctx, cmd_name)

    def format_commands(self, _ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the verbs with the registry's help lines."""
        entries = self._entries()
        rows = [(n, entries[n].help) for n in entries]
        rows += [(n, c.get_short_help_str(80)) for n, c in self.commands.items()]
        with formatter.section("Commands"):
            formatter.write_dl(sorted(rows))


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="brainlocus")
def cli() -> None:
    """Imaging genomics: brain images, people and genomes, thousands of phenotypes at once."""


for _name, _help in _GROUPS.items():
    cli.add_command(_StepGroup(name=_name, help=_help))


cast(click.Group, cli.commands["datasets"]).add_command(list_datasets)
cast(click.Group, cli.commands["datasets"]).add_command(fetch)
cli.add_command(demo)
cli.add_command(run)


@cli.command()
@click.argument("store", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8750, show_default=True, help="Port to listen on.")
def serve(store: Path, host: str, port: int) -> None:
    """Serve the portal of a store, read-only."""
    from brainlocus.portal import serve as serve_portal

    serve_portal(store, host=host, port=port)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and exit with its code."""
    # Threads of a matrix library wait by spinning when it is loaded: on every core, for nothing. Steps that use them
    # ask for them (docs/decisions/0007). What the user has set stands.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    # Imports make some hundred thousand objects that live to the end; looking for garbage among them took a tenth of
    # the time of a short command. Arrays, which are what is large here, are freed without the collector.
    gc.set_threshold(100_000, 20, 20)
    try:
        cli.main(args=arguments, prog_name="brainlocus", standalone_mode=False)
    except click.exceptions.Exit as error:
        sys.exit(error.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(2)
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted. Run again with --resume to go on.", err=True)
        sys.exit(130)
    except Exception as error:
        from brainlocus.pipeline.outputs import is_input_error

        if not is_input_error(error):
            click.echo("This is a bug in brainlocus; please report it with the lines below.", err=True)
            raise
        click.echo(f"Error: {error}", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
