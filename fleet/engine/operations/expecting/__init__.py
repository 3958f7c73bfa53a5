"""What is known of tasks before they are sent: for `fleet run --dry-run` and `fleet simulate`."""
