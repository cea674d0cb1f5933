"""Running programs that were written for another system."""
