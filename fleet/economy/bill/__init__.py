"""The bill: an entry for every call, their exact sums by hour and day, and the calls of which nobody knows the cost.

Entries are made by the gateway (`fleet/entries.py`); prices and budgets live beside this folder.
"""
