"""How many worker-hours each rule of scaling takes, and how many tasks begin too late under it."""
