"""What `benchmarks/data.py` measures: rows and their bars, inputs, and the same work on each library."""
