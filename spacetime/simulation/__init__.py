"""The live scheduler in virtual time: a plan that is kept or replaced under changing rates, and
what it is worth.

May import: devices, plan, planners, profiles, reports, workload.
Start with `simulator.py`; then `fixed_plan.py` and `changing_rates.py`.
"""
