"""The servers and the client of `bench serving`."""
