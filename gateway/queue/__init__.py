"""The tasks in Redis: both sides of the queue and the scripts that change it."""
