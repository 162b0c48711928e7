"""Figures of delivery from the record."""
