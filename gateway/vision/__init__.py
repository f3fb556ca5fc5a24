"""Pictures: what their headers say, pixels, boxes. Arrays in, arrays out."""
