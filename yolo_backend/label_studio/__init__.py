"""Label Studio, asked and told: its address and token, tasks, predictions, filters, and when it is away."""
