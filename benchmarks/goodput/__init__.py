"""The models, servers and client of `bench goodput`."""
