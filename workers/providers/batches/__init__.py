"""Batches of vendors: requests that are answered later, for less."""
