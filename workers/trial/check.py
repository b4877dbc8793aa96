"""Can the trial be executed here at all? Nothing is made before that is known; its inputs and data are laid out."""

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
"""Of the training split, spread evenly over it: the ranges of 8-bit products are found on these."""


def check_model(context: TrialContext) -> None:
    """Raises TrialEndedError if the model breaks a rule, or its target lacks something for it."""
    if broken := models.broken_rules(context.model):
        raise TrialEndedError("failed", f"the model breaks a rule: {broken[0].message}")
    if lack := unsupported(context.model, context.capabilities):
        raise TrialEndedError("infeasible", lack)


def fetch_data(context: TrialContext) -> TrialData:
    """The dataset's splits, downloaded where they are not here. Raises TrialEndedError, DataError, ServiceError."""
    task, dataset = context.task, context.dataset
    if dataset is None or dataset.task != task:
        raise TrialEndedError(
            "failed", f"{task} needs a dataset of its kind; the lease names {dataset and dataset.name}"
        )
    sections = (context.configuration.training, *(shape.inference for shape in context.at_shapes()))
    for section in sections if task == "causal_lm" else ():
        # Rows and pairs are filled up to any length; of a text there are windows.
        if section is not None:
            check_lengths(dataset, section.sequence_length)
    paths = {name: context.datasets.split(dataset, name, context.interruption) for name in ("training", "validation")}
    return TrialData(task, paths, _form(context, specials_of(dataset.facts)))


def _form(context: TrialContext, specials: Mapping[str, int]) -> Form:
    names = [given.name for given in context.signature.inputs]
    return Form.of(names, context.inference, specials)


def lay_out_probe_inputs(context: TrialContext) -> None:
    """Write the inputs that a probe is compared and measured on, at each shape."""
    for shape in context.at_shapes():
        save_inputs(shape.files.folder, probe_inputs(shape.signature, shape.model))


def lay_out_batches(context: TrialContext, data: TrialData) -> None:
    """Write the batches that are judged, at each shape the inputs that are compared and measured, and those of a
    quantization."""
    for shape in context.at_shapes():
        _lay_out_shape(shape, replace(data, form=_form(shape, data.form.specials)))


def _lay_out_shape(context: TrialContext, data: TrialData) -> None:
    # Only what is scored needs more examples than those that a measurement rotates over.
    at_most = None if context.is_scored else INPUT_SETS * context.batch_size
    validation: Batches = data.validation().evaluation(context.batch_size, at_most)
    if context.is_scored:
        validation.save(context.files.batches("validation"))
    save_inputs(context.files.folder, data_inputs(validation))
    if context.is_quantized:
        sample = data.training().evaluation(validation.targets.shape[1], at_most=CALIBRATION_EXAMPLES)
        sample.save(context.files.calibration)
