from .errors import browse_errors as browse_errors
from .occurrence import browse_occurrence as browse_occurrence
from .panorama import inspect_panorama as inspect_panorama
from .widgets import explore_overlay as explore_overlay
from .widgets import explore_prediction as explore_prediction
from .widgets import touch_up as touch_up
