"""The node's daemon: leases and workers, the store's ledger, workers' output."""
