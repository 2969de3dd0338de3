"""Graphs of models: exported, folded, compared and described, before they are fused.

Start with `export.py`; then `nodes.py`.
"""
