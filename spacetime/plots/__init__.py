"""Pictures, one file each. This is the only room that imports matplotlib.

May import: nothing of the package.
Start with the file that has the name of what is drawn.
"""
