"""How many nodes of which type a cluster should have, and why.

`autoscaler` is told what waits and what runs, and says what to launch and what to drain; `planning` decides by `packing`.
Nothing here launches anything: node launchers (`umbel.spi.NodeLauncher`) do.
"""
