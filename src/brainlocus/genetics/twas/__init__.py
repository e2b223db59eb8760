"""Transcriptome-wide association: predicted expression and thousands of phenotypes, and all that follows from it."""

__all__: list[str] = []
