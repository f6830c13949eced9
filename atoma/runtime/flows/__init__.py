"""What reading, writing and writing back mean."""
