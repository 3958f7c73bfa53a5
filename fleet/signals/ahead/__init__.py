"""What lies ahead at the pace of now: when a backlog is gone, when a budget ends, what a replay may cost. Pure."""
