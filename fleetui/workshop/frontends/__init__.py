"""Files of models in, graphs out: one small module for each kind of file, behind ``base.Frontend``."""
