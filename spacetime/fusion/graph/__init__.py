"""Models as graphs: a model is exported here, its graph is simplified, compared and described.

The files import `indexes/table.py` and `watched.py`, and nothing else of fusion.
Start with `export.py`, which makes the graph; then `nodes.py`, the facts about its nodes.
"""
