"""Rollouts as the page, `fleet rollout`, diagnosis and metrics show them."""
