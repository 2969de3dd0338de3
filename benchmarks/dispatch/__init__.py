"""What `bench dispatch` compares: the ways from a caller to a lane and back."""
