"""Object storage: objects of a bucket as bytes, as a disk that is read, and as a disk that is written.

``objects`` is the contract, ``cloud`` fills it for S3, Google Cloud Storage, Azure and HTTP. ``plain`` reads one
object; ``layout`` and ``disk`` keep a disk in many.
"""
