"""The papers' set-ups, as workloads and profiles."""
