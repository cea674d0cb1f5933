"""What every other part stands on: checks, configuration, time."""
