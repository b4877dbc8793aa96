"""Texts: files become UTF-8, UTF-8 becomes tokens on disk, tokens become a profile; none is held in memory whole."""
