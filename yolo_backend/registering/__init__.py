"""Images into Label Studio as tasks, with labels that exist already."""
