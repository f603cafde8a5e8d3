"""Training: what people labelled becomes weights for their project, if these are better than what serves."""
