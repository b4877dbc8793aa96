"""The nn.Module that each declaration of `layers` builds, under the same file names."""
