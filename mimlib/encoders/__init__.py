"""Encoders: images in, features out. A method or task takes the configuration of one of them."""

from mimlib.encoders.convvit import ConvViTConfig
from mimlib.encoders.swin import SwinConfig
from mimlib.encoders.vit import ViTConfig

EncoderConfig = ViTConfig | ConvViTConfig | SwinConfig
