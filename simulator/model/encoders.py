"""Parameters of the encoders of images that serving engines load beside a language model."""

from __future__ import annotations

from simulator.model.reader import ConfigReader


def llama4_vision(read: ConfigReader, hidden: int) -> int:
    """Parameters of Llama 4's image encoder and of its projection into the language model.

    A transformer with biases and layer norms over patches, a class token and learned positions;
    then a pixel-shuffle adapter of two matrices and a projection.

    Args:
        read: the ``vision_config``.
        hidden: width of the language model.
    """
    width, inner = read.integer("hidden_size"), read.integer("intermediate_size")
    patch = read.integer("patch_size")
    patches = (read.integer("image_size") // patch) ** 2
    attention = 4 * (width * width + width)
    feed_forward = 2 * width * inner + inner + width
    layers = read.layers() * (attention + feed_forward + 2 * 2 * width)
    ends = 2 * 2 * width + read.integer("num_channels", default=3) * patch**2 * width
    positions = width + (patches + 1) * width
    projected = read.integer("projector_output_dim")
    adapter = inner * read.integer("projector_input_dim") + projected**2
    return layers + ends + positions + adapter + read.integer("vision_output_dim") * hidden
