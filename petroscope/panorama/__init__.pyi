from .flatfield import FlatField as FlatField
from .panorama import Panorama as Panorama
