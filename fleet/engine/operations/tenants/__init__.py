"""Tenants in the queue, as people see them."""
