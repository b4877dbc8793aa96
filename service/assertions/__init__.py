"""Limits on a trial that is measured anew: does it still keep them, here and now?"""
