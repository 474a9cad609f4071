"""Where does an inventory lie? In a folder of sorted Parquet parts: `Writer` makes it, `Inventory` reads it."""

from .reading import MANIFEST as MANIFEST
from .reading import Inventory as Inventory
from .reading import Part as Part
from .writing import ShardWriter as ShardWriter
from .writing import Writer as Writer
from .writing import begun_with as begun_with
