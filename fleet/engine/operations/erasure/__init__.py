"""Erasure: a tenant's words, or those of some tasks, are found wherever Fleet keeps them, and go (docs/erasure.md).

`declared.py` says of every Redis key what it holds and what becomes of that; `forgetting.py` is the way through them.
"""
