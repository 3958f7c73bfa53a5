"""Rollouts as people see and handle them."""
