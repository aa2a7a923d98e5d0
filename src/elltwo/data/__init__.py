"""Where rows live: the Source contract, arrays in memory, and tables read as a stream of Arrow batches."""
