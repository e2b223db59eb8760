"""Argument parsing only: parse, build the configuration, call the pipeline, print."""
