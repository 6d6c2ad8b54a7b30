from .exchange import read_geojson as read_geojson
from .exchange import write_coco as write_coco
from .exchange import write_geojson as write_geojson
from .grains import find_grains as find_grains
from .section import analyse as analyse
