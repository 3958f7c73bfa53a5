"""Benchmarks: programs that each print one table. They start what they need and stop it again."""
