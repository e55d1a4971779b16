"""How the lite renderer samples references; not in the paper."""

from models.motion_field import Sampling

# Zero flow is the identity, a reference's edge continues outside it, and images stay sharp between pixels.
LITE = Sampling(border=0.5, outside="border", images="bicubic")
