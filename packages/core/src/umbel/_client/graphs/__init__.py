"""Graphs of calls: made by `bind`, run as ordinary calls, or compiled into loops in the actors.

`nodes` is what a program builds. `plan` turns it into what each actor does, and which edges carry its values;
`executions` is the driver's book, `ring` decides which slot of an edge comes next. None of these does anything.
`channels` moves values through shared memory, `loop` runs in an actor, `compiled` is what `experimental_compile` returns.
"""
