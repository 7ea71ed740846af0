"""Operators: what can give commands in a recording session, behind one protocol (:mod:`.base`)."""
