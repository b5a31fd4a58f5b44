"""Which models there are, where they run, and which server gets the next request."""
