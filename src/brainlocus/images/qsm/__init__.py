"""Quantitative susceptibility mapping: phase to field to local field to susceptibility, and T2*."""

__all__: list[str] = []
