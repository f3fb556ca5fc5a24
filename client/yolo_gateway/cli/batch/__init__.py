"""Many files: find them, send them, note each finished one in a journal, write the annotations from it."""
