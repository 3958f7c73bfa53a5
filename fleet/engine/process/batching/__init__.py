"""Batches: one process of the fleet sends them, reads what came of them, and pays for nothing twice."""
