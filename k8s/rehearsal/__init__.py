"""The rehearsal: the rendered manifests as processes of one machine, rolled, emptied and killed under load."""
