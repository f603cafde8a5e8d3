"""What takes minutes: thousands of tasks, every fault at length, a whole install, clusters. `make proofs`."""
