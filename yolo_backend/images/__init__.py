"""From a task's value to upright pixels."""
