"""What answers were found to be worth, as metrics tell it."""
