"""Which pixels are the target: segmentation from a box, tracking at the rate of control."""
