"""Where the control store keeps its records: the built-in control storages, and opening one by its URL."""
