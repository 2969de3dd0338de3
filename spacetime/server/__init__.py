"""Open Inference Protocol v2 over HTTP and gRPC, and metrics: a session's tenants for clients.

It needs the extra `serve`. `serve.py` puts the process together. A request arrives in `http/` or
`grpc/`, then passes through `repository.py`, `model.py` and `tensors.py`, which know no transport.

May import: devices, live, models, reports, session, terminal, workload.
Start with `serve.py`.
"""
