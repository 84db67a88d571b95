"""Files: atomic writes, fingerprints, heat maps, tables, and what is taken out of published wheels."""
