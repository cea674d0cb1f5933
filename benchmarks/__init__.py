"""Side-by-side measurements: the same code on Umbel and on its peers, medians and ratios.

The programs (`core.py`, `compare.py`, `data.py`, `profile.py`, `soak.py`, `chaos.py`) run as scripts from anywhere: each puts the
repository on `sys.path` in place of this folder, because a module of ours is called `profile`, and so is one that `cProfile`
imports.
"""
