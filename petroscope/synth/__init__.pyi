from .looks import LOOKS as LOOKS
from .looks import S1 as S1
from .looks import S2 as S2
from .looks import Look as Look
from .rock import Scene as Scene
from .rock import scene as scene
from .scan import Fields as Fields
from .scan import fields as fields
