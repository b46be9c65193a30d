"""Faces for people: contact sheets and figures."""
