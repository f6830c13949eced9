"""Programs that talk to each other: each end of each wire in a process of its own, ours and its peers."""
