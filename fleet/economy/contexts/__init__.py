"""Shared documents, stored once and named by tasks (docs/contexts.md).

What commands do is `documents.py`, a worker's side `shelf.py`.
"""
