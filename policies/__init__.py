"""Policies: Cilium network policies as data, and the verdicts they give on facts."""
