"""A simulator of the state machines that decide: many runs, each by its own seed, in one process.

The machines are the production ones; so is most of what carries out their commands. Sockets, shared memory, processes
and time are simulated: connections delay what they carry, processes die between any two steps, and after every step the
invariants of docs/invariants.md are checked. A failure says its seed, and the same seed does the same again.
"""
