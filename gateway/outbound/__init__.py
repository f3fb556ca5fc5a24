"""The only way to other hosts."""
