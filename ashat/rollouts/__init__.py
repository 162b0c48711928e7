"""Rollouts in waves: the policy, who is in which wave, what happens next, and what a bad release would cost.

Everything here is a pure function of documents and counters: no clock, no file, no network.
"""
