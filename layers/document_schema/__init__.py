"""The sweep document as a JSON Schema, made of the declarations, for editors and programs that write documents."""
