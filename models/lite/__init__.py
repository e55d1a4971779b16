"""Lite: our additions to the paper's networks. This file says how the lite renderer samples references."""

from models.motion_field import Sampling

# Zero flow is the identity, edge pixels repeat outside a reference, and bicubic interpolation keeps images sharp.
LITE = Sampling(margin=0.5, padding_mode="border", image_mode="bicubic")
