"""Whether the choice holds: further seeds for the front's candidates, scored on the split that no sweep has seen."""
