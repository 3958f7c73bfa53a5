"""The limiter in simulated time: its scripts in plain Python, and what they would give a fleet.

`forecast.py` is what `fleet simulate` shows; tests hold `model.py` against the scripts. Nothing here asks Redis.
"""
