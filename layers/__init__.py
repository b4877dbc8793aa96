"""What a model is: parameters, rules, modules. Never HTTP, a database or TensorRT."""
