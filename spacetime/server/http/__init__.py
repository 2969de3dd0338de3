"""The protocol over HTTP: an ASGI application, its listener and its messages.

Start with `application.py`.
"""
