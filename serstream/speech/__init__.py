"""From sound to speech windows: voice activity detection and segmentation."""
