"""What to label next, by how unsure the detector is."""
