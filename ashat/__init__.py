"""ASHAT Deploy: the library under the flows. Nothing in here imports Prefect, but `ashat.cli`."""

__version__ = "0.1.0"
