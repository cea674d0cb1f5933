"""How a plan runs: what is started when, on workers or in the calling process."""
