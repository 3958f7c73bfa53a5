"""Lanes: the ways to a model, each with its own price and delay, and which of them a task takes.

The rule is `choice.py`, without I/O; what the fleet has learnt of lanes is read by `learnt.py`.
"""
