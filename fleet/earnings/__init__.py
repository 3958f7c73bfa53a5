"""Earnings: what accepted tasks have earned the payees of their bots, a ledger that is only ever added to.

What calls cost is another ledger (`economy/bill/`); a task's id joins both. Who is paid, and how: `fleet/payouts/`.
"""
