from .plot import colorize as colorize
from .plot import error_map as error_map
from .plot import error_sheet as error_sheet
from .plot import overlay as overlay
from .plot import scale_bar as scale_bar
from .plot import sheet as sheet
from .plot import with_legend as with_legend
