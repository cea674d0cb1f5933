"""Blocks, which are Arrow tables, and the kernels that work on them. Nothing here knows of tasks."""
