"""Figures of the steps: arrays to PNG files, drawn without a display."""
