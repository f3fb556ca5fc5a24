"""Deliveries to the clients' callback URLs."""
