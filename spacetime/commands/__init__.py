"""What each command does: it reads files, calls the library and prints. `commands/plan.py` belongs
to `cli/plan.py`, and so on: `PlanCommand` holds the options, and `run(asked)` carries them out.

May import: demo, devices, fusion, isolation, kernels, live, models, plan, planners, plots,
profiles, reports, server, session, simulation, terminal, verify, workload.
`embed.py` is behind `--cflags` and `--libs`; `prepare.py` is run by its module's name.
Start with `simulate.py`, the shortest way from files to a table.
"""
