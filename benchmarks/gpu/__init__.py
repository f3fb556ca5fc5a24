"""`make gpu-check`: whether this service does on a GPU what it promises, in one report."""
