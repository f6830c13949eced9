"""Programs under ``dev.py soak``: faults put into a copy of the checkout, to see whether the tests notice them."""
