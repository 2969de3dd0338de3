"""The names of the ways to run R tenants, and what each stands for; torch is not needed for them.

The paper (D-STS, 1901.00041) compares with two ways of its day: one tenant after another
(time-only) and all at once on streams or under MPS (space-only). Both launch eagerly and pay their
host. Captured ways, which do not, are stronger baselines, and are told apart from them.
"""

from __future__ import annotations

LOOP, STREAMS, SERIAL = "loop", "streams", "graph, serial"
BRANCHES, BATCHED, GROUPED = "graph, branches", "cuBLAS batched", "cuDNN grouped"
VMAP, COMPILED, BOUND, OURS = "vmap", "torch.compile", "one batch", "space-time"
WAYS = (LOOP, SERIAL, STREAMS, BRANCHES, BATCHED, GROUPED, VMAP, COMPILED, BOUND, OURS)
TIME_ONLY, SPACE_ONLY = (LOOP, SERIAL), (STREAMS,)
EAGER = (LOOP, STREAMS)  # these pay their host, and are compared with a launch that pays it too
PROCESSES, UNDER_MPS = "processes", "processes under MPS"

STANDS_FOR = {
    LOOP: "eager launches of one tenant after another (time-only, the paper's way)",
    SERIAL: "one tenant after another in one captured graph (time-only)",
    STREAMS: "eager launches on a stream a tenant (space-only, the paper's way)",
    BRANCHES: "a branch a tenant in one captured graph (space-only)",
    BATCHED: "one strided batched product of cuBLAS, captured",
    GROUPED: "one grouped convolution of cuDNN, captured",
    VMAP: "PyTorch's own ensembling, captured",
    COMPILED: "the loop through torch.compile, captured",
    BOUND: "the upper bound: one model with R times the batch, captured",
    OURS: "ours: one super-kernel, captured",
    PROCESSES: "a process a tenant, which the driver runs in turn (time-only, the paper's way)",
    UNDER_MPS: "a process a tenant under MPS (space-only, the paper's way)",
}

# Of `probes`, in the order they are asked; `questions` answers them.
QUESTIONS = (
    "versions",
    "splits",
    "sm_ids",
    "contexts",
    "graph_sms",
    "cudnn_nodes",
    "clusters",
    "launches",
    "gpm",
    "queues_8",
    "queues_32",
    "sm_ids_again",
)
