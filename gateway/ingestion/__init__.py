"""Files on their way into vector stores, and out of them again."""
