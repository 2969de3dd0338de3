"""What several benchmarks need: load, server processes, interleaved rounds, whole files."""
