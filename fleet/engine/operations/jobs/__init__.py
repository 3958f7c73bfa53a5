"""What people see of jobs, and do about them."""
