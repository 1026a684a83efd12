"""What the benchmark on a real domain reads."""
