from . import analysis as analysis
from . import io as io
from . import notebook as notebook
from . import optics as optics
from . import panorama as panorama
from . import segmentation as segmentation
from . import synth as synth
from . import view as view
from .api import analyse as analyse
from .api import evaluate as evaluate
from .api import list_models as list_models
from .api import load_model as load_model
from .api import segment as segment
from .api import stitch as stitch
from .api import train as train
from .io.images import read_image as read_image
from .io.images import read_mask as read_mask
from .optics.measure_scale import measure_scale as measure_scale
from .panorama.panorama import Panorama as Panorama
from .segmentation.balancer import SelfBalancingDataset as SelfBalancingDataset
from .segmentation.classes import LumenStoneClasses as LumenStoneClasses
from .segmentation.dataset import LumenStone as LumenStone
from .segmentation.metrics import SegmMetrics as SegmMetrics
from .segmentation.model import GeoSegmModel as GeoSegmModel
from .segmentation.prediction import Prediction as Prediction
from .segmentation.resunet import ResUnet as ResUnet

__version__: str
