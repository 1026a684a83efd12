"""What the benchmark on real data is made of."""
