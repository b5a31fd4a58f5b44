"""What was used: by project, key, model and hour."""
