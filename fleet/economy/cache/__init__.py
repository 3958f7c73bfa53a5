"""Kept answers of deterministic kinds: equal tasks are asked once (docs/caching.md).

What makes tasks equal is `digest.py`, what workers do `answers.py`, what commands do `reading.py`.
"""
