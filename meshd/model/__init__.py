"""What a resource is: its key, metadata and labels, its type, the registry of types, and the errors all floors share.

Pure values; nothing here reads a clock, a file or a socket. The specs of the kinds live in ``meshd.kinds`` and
``meshd.policies``; how they are stored in ``meshd.store``; how they cross a zone border in ``meshd.kds``.
"""
