"""What a model is: parameters, rules, modules. No HTTP, database or TensorRT; torch in `modules` and `export` alone."""
