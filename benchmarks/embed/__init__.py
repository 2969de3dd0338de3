"""The server and the client of `bench embed`."""
