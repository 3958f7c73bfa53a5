"""Payouts: earnings become payments on a network, once. An extra (`celery-fleet[payouts]`) that no worker imports.

What is due is netted here, written into a slip (a file), signed offline, sent, and followed until nothing can undo it.
"""
