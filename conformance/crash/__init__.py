"""Kills a broker at random moments and checks what it promised against the client's own record."""
