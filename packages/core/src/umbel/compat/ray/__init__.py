"""Runs programs written for Ray: `python -m umbel.compat.ray script.py [arguments]`.

In such a process, and in its workers, `import ray` gives modules whose names stand for ours:
`ray.exceptions.RayTaskError` is `umbel.exceptions.UmbelTaskError`, `RAY_ADDRESS` is `UMBEL_ADDRESS`. A name that
Umbel does not have raises an error that says so. A Ray that is installed beside it is not used.

A program that starts otherwise can have the same from `import umbel.compat.ray.install` as its first line. So must a
process that the program starts by itself, as with `subprocess` or the standard library's multiprocessing by "spawn".
"""
