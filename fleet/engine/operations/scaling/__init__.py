"""How many slots are wanted, read and published: `reading.py` reads what pools ask for, `deciding.py` decides."""
