"""Change the outputs of layers: patched models, ablation, activation patching."""

from actgrid.interventions.ablation import ablate_channels
from actgrid.interventions.activation_patching import patch_activations
from actgrid.interventions.channel_edits import scale
from actgrid.interventions.patching import patch
from actgrid.interventions.results import ActivationPatching, ChannelAblation

__all__ = [
    "ActivationPatching",
    "ChannelAblation",
    "ablate_channels",
    "patch",
    "patch_activations",
    "scale",
]
