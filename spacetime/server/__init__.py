"""Open Inference Protocol v2 over HTTP and gRPC, and metrics: a session's tenants for clients.

Needs the extra `serve`. `serve.py` puts it together; what a request goes through lies in `http`
or `rpc`, then `repository`, `model` and `tensors`, which know no transport.

May import: devices, live, models, reports, session, terminal, workload.
Start with `serve.py`.
"""
