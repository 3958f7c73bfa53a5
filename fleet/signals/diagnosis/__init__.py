"""What is wrong with the fleet, worst first: one engine behind the page, `fleet top`, `stats`, `doctor` and the alerts.

What a finding looks like: `finding.py`. Who finds it: `engine.py`, out of a view and its symptoms (`symptoms.py`).
"""
