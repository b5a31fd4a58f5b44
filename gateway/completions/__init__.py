"""``/v1/completions``, the text completions of old."""
