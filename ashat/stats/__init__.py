"""Figures of delivery, read from the record alone: how often, how fast, how many fail, how soon they are mended."""
