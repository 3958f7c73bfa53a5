"""What a worker does with several brokers: their channels, turns between them, and slots that they share."""
