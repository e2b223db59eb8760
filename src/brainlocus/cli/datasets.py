"""``brainlocus datasets``: public data by checksum."""

import click

__all__ = ["fetch", "list_datasets"]


@click.command("list")
def list_datasets() -> None:
    """List the known datasets with origin and licence."""
    from brainlocus.io.datasets import DATASETS

    for dataset in DATASETS.values():
        click.echo(f"{dataset.name}\n  {dataset.description}\n  from {dataset.origin}\n  licence: {dataset.licence}")


@click.command()
@click.argument("name")
def fetch(name: str) -> None:
    """Fetch dataset NAME if it is not here yet, and print where its files are."""
    from brainlocus.io.datasets import fetch_dataset

    for path in fetch_dataset(name).values():
        click.echo(str(path))
