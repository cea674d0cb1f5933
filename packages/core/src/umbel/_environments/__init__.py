"""Runtime environments: what their fields mean, packaging of local files, and building what workers are to run in."""
