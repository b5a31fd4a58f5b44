"""The data path: a request goes to a model server and its answer comes back, as bytes."""
