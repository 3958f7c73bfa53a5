"""What is told of jobs."""
