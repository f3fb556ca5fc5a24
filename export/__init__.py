"""Checkpoint → model repository. Never imported by the gateway."""
