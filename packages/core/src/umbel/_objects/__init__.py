"""Objects: how values become bytes, where the bytes live, and who needs them."""
