"""Compatibility of tools: a caller of one version keeps working with another, or the changes that break it."""

from meshwright.registry.compat.contract import contract_changes, is_compatible

__all__ = ["contract_changes", "is_compatible"]
