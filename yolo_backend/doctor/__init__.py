"""The connection doctor: each link from here to a prediction in Label Studio, tried without changing anything there."""
