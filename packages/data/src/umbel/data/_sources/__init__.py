"""Where rows come from, one module for each kind of source; `umbel.data.datasource` has the public names."""
