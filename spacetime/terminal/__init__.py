"""What a person sees at a terminal while a command runs: tables that fit, and progress.

May import: nothing of the package.
Start with `tables.py`; `report_tables.py` has what several commands print of a report.
"""
