"""What models teach by their errors: what they refuse, how much they take, and requests made accordingly."""
