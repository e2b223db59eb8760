"""Genes and sets of genes."""

__all__: list[str] = []
