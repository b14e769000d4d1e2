"""A picture of an image: what ``inspect`` told, and where its bytes are, what fills it, what starts it."""

from blockwright.picture.take import Look, take

__all__ = ["Look", "take"]
