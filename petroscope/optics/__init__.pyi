from .flatfield import FlatField as FlatField
