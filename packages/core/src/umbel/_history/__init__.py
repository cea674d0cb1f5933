"""The history of a session: what is reported of tasks that ended, how it is stored, and how it is asked for."""
