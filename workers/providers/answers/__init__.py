"""What answers of the two native wires say: their parts, and the events in which they come."""
