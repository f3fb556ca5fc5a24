"""Triton as gateway and worker see it: its models, its answers, its shared memory."""
