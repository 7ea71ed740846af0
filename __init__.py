"""DexLoop: dexterous grasping from an operator's hand to a closed loop.

The repository's top level is this package: ``dexloop.collect`` is the folder ``collect/``.
"""

__version__ = "0.1.0"
