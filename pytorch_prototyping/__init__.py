"""Building blocks that know nothing about scenes or cameras: convolution blocks (`blocks`) and
U-Nets (`unet`)."""
