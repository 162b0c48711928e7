"""The tests: unit needs no process, node one node, stack a control plane; support is what they share."""
