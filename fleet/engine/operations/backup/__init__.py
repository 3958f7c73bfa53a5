"""What Redis holds of a fleet, to a file and back (docs/backup.md)."""
