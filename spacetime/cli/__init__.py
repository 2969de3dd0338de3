"""The `spacetime` command: each command's options and its help. Help is instant, so that only
click is imported here. What a command does is in `commands/`, in a file of the same name, which is
imported when the command runs; only `bench` runs modules of `benchmarks/`.

May import: planners, workload.
Start with `root.py`, which gathers the commands; `plan.py` holds the options of `spacetime plan`,
and so on.
"""
