"""What the pictures of a sweep show, as numbers."""

from __future__ import annotations

from layersweep.records.analyses import ColumnSample, Effect, Hypervolume, Importance, Tradeoff
from layersweep.records.sweeps import SweepDetailRecord
from layersweep.transport import Transport


class Analyses:
    """The analyses of one sweep. Metrics and parameters are named as in a leaderboard; `@shape` too."""

    _transport: Transport
    record: SweepDetailRecord

    @property
    def id(self) -> str:
        return self.record["id"]

    def importance(self) -> Importance:
        """How much each open parameter matters to each objective (PED-ANOVA), with bootstrap intervals.

            sweep.importance()["objectives"]["validation_loss"]["num_layers"]

        A share below its `noise` may be chance. Empty with fewer than `fewest_trials` feasible complete trials.
        """
        return self._transport.object("GET", self._path("/importance"), named_by="sweep")

    def effect(self, parameter: str, metric: str) -> Effect:
        """A metric's quartiles and best value at each value of one parameter, or in ranges of them.

        Raises ResponseError (422) for a name that the sweep does not have.
        """
        params = {"parameter": parameter, "metric": metric}
        return self._transport.object("GET", self._path("/effect"), named_by="sweep", params=params)

    def tradeoff(self, x: str, y: str, *, limit: int = 2000) -> Tradeoff:
        """The measured trials by two metrics, and the `edge` of those that no other betters in the two.

        Of more than `limit` trials: the whole front, the rest evenly thinned.
        """
        params = {"x": x, "y": y, "limit": limit}
        return self._transport.object("GET", self._path("/tradeoff"), named_by="sample", params=params)

    def hypervolume(self) -> Hypervolume:
        """How the front grew, trial by trial: the dominated share of the space of objectives."""
        return self._transport.object("GET", self._path("/hypervolume"), named_by="sweep")

    def columns(self, *names: str, limit: int = 2000) -> ColumnSample:
        """Metrics and parameters of the measured trials as lists, thinned as by `tradeoff`."""
        params = {"name": names, "limit": limit}
        return self._transport.object("GET", self._path("/columns"), named_by="sweep", params=params)

    def _path(self, rest: str = "") -> str:
        return f"/v1/sweeps/{self.id}{rest}"
