"""Which work goes where: placement policies, an owner's task queues and actor mailboxes. Decides only."""
