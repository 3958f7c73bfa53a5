"""What an answer tells of a key's limits, beside the answer itself: rates, when to come back, calls at once.

Pure functions of headers, body and time. What follows from them is the limiter's to decide.
"""
