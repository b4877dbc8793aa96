"""Check that the trial can run here, before anything is built, and lay out its inputs and data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from layers.capabilities import unsupported
from layers.declarations import model as models
from workers.data.batches import Batches
from workers.data.cache import check_lengths
from workers.data.inputs import INPUT_SETS, data_inputs, probe_inputs, save_inputs
from workers.data.splits import Form, TrialData, specials_of
from workers.trial.context import TrialContext
from workers.trial.outcomes import TrialEndedError

CALIBRATION_EXAMPLES = 128
"""Examples of the training split, spread evenly over it, from which the ranges of 8-bit products come."""


def check_model(context: TrialContext) -> None:
    """Raise TrialEndedError if the model breaks a rule or needs something that its target lacks."""
    if broken := models.broken_rules(context.model):
        raise TrialEndedError("failed", f"the model breaks a rule: {broken[0].message}")
    if lack := unsupported(context.model, context.capabilities):
        raise TrialEndedError("infeasible", lack)


def fetch_data(context: TrialContext) -> TrialData:
    """The dataset's splits, downloaded unless they are cached. Raises TrialEndedError, DataError, ServiceError."""
    task, dataset = context.task, context.dataset
    if dataset is None or dataset.task != task:
        raise TrialEndedError(
            "failed", f"{task} needs a dataset of its kind; the lease names {dataset and dataset.name}"
        )
    sections = (context.configuration.training, *(shape.inference for shape in context.at_shapes()))
    for section in sections if task == "causal_lm" else ():
        # Rows and pairs are padded to any length, but a text must be long enough for a window.
        if section is not None:
            check_lengths(dataset, section.sequence_length)
    paths = {name: context.datasets.split(dataset, name, context.interruption) for name in ("training", "validation")}
    return TrialData(task, paths, _form(context, specials_of(dataset.facts)))


def _form(context: TrialContext, specials: Mapping[str, int]) -> Form:
    names = [given.name for given in context.signature.inputs]
    return Form.of(names, context.inference, specials)


def lay_out_probe_inputs(context: TrialContext) -> None:
    """Write the inputs for a probe's parity check and measurement, at each shape."""
    for shape in context.at_shapes():
        save_inputs(shape.files.folder, probe_inputs(shape.signature, shape.model))


def lay_out_batches(context: TrialContext, data: TrialData) -> None:
    """Write the validation batches, the calibration examples, and at each shape the inputs for parity and
    measurement."""
    for shape in context.at_shapes():
        _lay_out_shape(shape, replace(data, form=_form(shape, data.form.specials)))


def _lay_out_shape(context: TrialContext, data: TrialData) -> None:
    # Only the scored shape needs more examples than a measurement rotates through.
    at_most = None if context.is_scored else INPUT_SETS * context.batch_size
    validation: Batches = data.validation().evaluation(context.batch_size, at_most)
    if context.is_scored:
        validation.save(context.files.batches("validation"))
    save_inputs(context.files.folder, data_inputs(validation))
    if context.is_quantized:
        sample = data.training().evaluation(validation.targets.shape[1], at_most=CALIBRATION_EXAMPLES)
        sample.save(context.files.calibration)
