"""The set-ups of the papers' evaluations, as workloads and profiles."""
