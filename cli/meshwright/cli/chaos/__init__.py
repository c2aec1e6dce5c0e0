"""Chaos: every promise of durability, put to the test on a real mesh that is being broken on purpose."""
