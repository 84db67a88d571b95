"""3D poses from single pictures: the networks, their files, and how a picture's pose comes into metres."""
