"""What a thief can do: with stolen keys, a stolen OMEGA, a rewritten log."""
