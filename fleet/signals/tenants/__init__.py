"""What waits by tenant: what people see of it, and what Prometheus is told."""
