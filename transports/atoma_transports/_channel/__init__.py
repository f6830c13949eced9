"""Frames over message pipes: the part of a channel that is the same on every transport."""
