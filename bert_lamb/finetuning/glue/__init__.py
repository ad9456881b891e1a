"""The nine tasks of GLUE (Wang et al. 2019, arXiv 1804.07461)."""
