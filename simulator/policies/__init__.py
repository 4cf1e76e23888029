"""Policies: plain functions over small views of the instances."""
