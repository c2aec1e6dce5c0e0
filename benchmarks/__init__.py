"""Benchmarks: what a task, a call, a watcher costs, in ratios that hold on any machine."""
