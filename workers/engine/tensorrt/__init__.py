"""TensorRT and TensorRT for RTX. Only here is the library imported."""
