"""The page at `/`: pictures in, boxes out, in a browser."""
