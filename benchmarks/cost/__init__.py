"""What each lever against the cost of answers saves, by the simulator's ledger: `python -m benchmarks.cost`."""
