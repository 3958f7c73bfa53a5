"""The first release at work: how it is built, what it is given to do, and what it left in Redis."""
