"""Which files are there, and what differs between two sides: inventories, joined in bounded memory; no AWS here.

What needs pyarrow (`schema`, `store`, `merge` …) is imported where it is used.
"""

from .entries import METADATA_KEY as METADATA_KEY
from .entries import Entry as Entry
from .entries import Pending as Pending
from .entries import Posix as Posix
from .entries import entry_of_object as entry_of_object
from .entries import nanoseconds as nanoseconds
from .entries import parse_scan as parse_scan
from .entries import pending as pending
from .entries import posix as posix
