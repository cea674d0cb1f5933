"""Where rows go, one module for each kind of sink; `umbel.data.datasink` has the public names."""
