"""The problems of `bench flops`, and the ways to run them."""
