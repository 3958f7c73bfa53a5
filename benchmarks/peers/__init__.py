"""The same tasks for every task queue that `benchmarks.transport` runs: nothing, one INCR, and one that holds on.

Each module offers `COMMAND` (a worker of one process), `submit(task, count)` and `waiting()`: messages not done yet.
"""
