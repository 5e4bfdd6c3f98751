"""A model that the user brings: opened by content, rebuilt where possible, fed and read as it wants."""
