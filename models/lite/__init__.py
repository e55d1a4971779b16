"""Lite: what the paper does not have. Here is how its renderer samples references."""

from models.motion_field import Sampling

# Zero flow is the identity, a reference's edge continues outside it, and images stay sharp between pixels.
LITE = Sampling(border=0.5, outside="border", images="bicubic")
