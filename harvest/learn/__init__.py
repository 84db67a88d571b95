"""Models trained on what the studio draws and what runs harvest."""
