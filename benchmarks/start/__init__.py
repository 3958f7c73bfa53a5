"""What a worker, a command and the page take to start, and what Redis keeps, as bots, pools and queued tasks grow."""
