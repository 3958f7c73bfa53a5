"""What processes and threads of a fleet take turns at, run on, and listen with; and how they find a master."""
