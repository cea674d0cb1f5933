"""What the cluster knows: actors and their names."""
