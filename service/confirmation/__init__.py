"""Whether the choice holds: further seeds for the front's candidates, scored on the part that no sweep has seen."""
