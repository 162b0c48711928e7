"""The agent of a Licensed Mainframe: OMEGA's client and witness, the verifier of offers, and the plan."""
