"""What processes and threads of a fleet take turns at, and run on."""
