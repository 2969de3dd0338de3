"""The protocol over gRPC: its services, messages and tensors.

Start with `service.py`.
"""
