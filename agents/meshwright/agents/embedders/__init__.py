"""Embedders: what long-term memories are found by."""
