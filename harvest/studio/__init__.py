"""Made-up captures with exact truth."""
