"""The stages of a run: each reads what earlier ones wrote, and writes one file or folder."""
