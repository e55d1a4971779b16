"""Metrics of talking faces: image quality, identity, lip motion and lip synchronisation."""
