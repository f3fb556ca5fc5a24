"""`make doctor`: whether what people believe of a running Triton is true. Works without torch."""
