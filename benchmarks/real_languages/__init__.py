"""Parts of the benchmark on real languages."""
