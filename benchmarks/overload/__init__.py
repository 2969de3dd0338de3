"""The load of `bench overload`."""
