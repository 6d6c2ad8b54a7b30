from .panorama import Panorama as Panorama
