"""The checks of local engines, by what they are about."""
