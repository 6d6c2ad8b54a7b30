from .images import read_image as read_image
from .images import read_mask as read_mask
from .images import write_image as write_image
from .images import write_mask as write_mask
from .scale import pixel_size_um as pixel_size_um
