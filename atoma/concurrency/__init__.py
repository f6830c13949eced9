"""What tasks that run beside each other share."""
