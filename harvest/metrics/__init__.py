"""Measuring against truth or against other tools; nothing that infers imports this."""
