"""Let each server run again what it ran before, and get the approval that this may need."""
