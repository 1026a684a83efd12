"""Parts of the benchmarks of speed."""
