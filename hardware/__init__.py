"""The rig behind one small interface: description, kinematics, MuJoCo twin, safety.

Imports none of the other folders. Nothing here imports MuJoCo except ``hardware.twin``.
"""
