"""Analysis: a model and a board in, what every operation and buffer costs out, for terminal, page and programs."""

from tinypeft.analysis.page import render_page, write_page
from tinypeft.analysis.report import SCHEMA, Analysis
from tinypeft.analysis.run import analyse_file

__all__ = ["SCHEMA", "Analysis", "analyse_file", "render_page", "write_page"]
