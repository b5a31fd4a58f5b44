"""How much projects, keys and models may ask for, and how much projects may keep."""
