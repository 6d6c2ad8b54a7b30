from .flatfield import FlatField as FlatField
from .microscope import MicroscopeSettings as MicroscopeSettings
from .microscope import write_settings as write_settings
from .reference import calibrate_reference as calibrate_reference
