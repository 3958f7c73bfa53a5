"""What people see of asks: one question to several bots."""
