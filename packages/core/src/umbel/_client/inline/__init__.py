"""The engine that runs everything in the calling process, for debuggers, doctests and tests.

Tasks and actors have a thread each, but only one thread runs at a time, and which one is decided by rules instead of by
chance: the same program runs in the same order every time, unless it waits with a timeout, awaits timers or has threads
of its own. `baton` holds those rules. Values are pickled and counted as between processes, so a program that works here
does not fail elsewhere because it shared an object by accident.

What one process cannot have:

- `os._exit`, a segmentation fault or a full memory ends the whole program, not one worker. `sys.exit` ends a worker.
- Module globals, class attributes and the working directory are shared by all tasks and actors.
- Code that computes or sleeps is not interrupted: timeouts and cancellations wait until it calls Umbel or ends.
- A `threading.Lock` held while waiting for a result stops whoever else wants that lock, and with it everybody. Events,
  conditions, queues and joins of `threading` do not: whoever waits in one lends its turn.
- Resources are checked, not waited for: what fits into the machine when it is empty starts at once. `max_calls` and
  the size of the object store have no effect.
- A task whose arguments are there runs when it is submitted, so a `cancel` on the next line finds it finished.

A *worker* is here what has an id of its own, as if it were a process: a lane that runs tasks, until one of them is killed
or exits, or one life of an actor. Objects and actors end with the worker that owns them.
"""

from umbel._client.inline.engine import InlineEngine as InlineEngine

__all__ = ["InlineEngine"]
