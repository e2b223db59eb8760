"""Readers and writers: bytes to core types and back, one module per format."""
