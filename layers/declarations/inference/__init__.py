"""What is measured: the section `inference`, its shapes, and what an engine's builder is told."""
