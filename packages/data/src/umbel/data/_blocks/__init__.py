"""What is done with blocks, the Arrow tables of a dataset: functions of tables on one thread, which know nothing of tasks."""
