"""Size waves by Wald's sequential probability ratio test instead of fixed steps.

A. Wald, "Sequential Tests of Statistical Hypotheses", The Annals of Mathematical Statistics 16 (1945), 117 to 186
(https://doi.org/10.1214/aoms/1177731118), section 5.3: the binomial case. After s successes and f failures the log of
the likelihood ratio of p1 against p0 is

    f ln(p1 / p0) + s ln((1 - p1) / (1 - p0))

At ln((1 - beta) / alpha) or above the release is called bad, at ln(beta / (1 - alpha)) or below good, and in between
the test goes on. A bad release (p1) is let through at most about beta of the time, a good one (p0) stopped about alpha.
"""

from __future__ import annotations

import math
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

Verdict = Literal["good", "bad", "undecided"]


class Sequential(BaseModel):
    """Hold what a sequential test tells apart, and how surely. Rates are failures in 1000 Mainframes."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    acceptable_per_mille: int = Field(
        default=10, ge=1, le=998, title="Test: acceptable", description="Failures in 1000 that a good release may have."
    )
    unacceptable_per_mille: int = Field(
        default=50, ge=2, le=999, title="Test: unacceptable", description="Failures in 1000 that a bad release has."
    )
    alpha_per_mille: int = Field(
        default=50, ge=1, le=499, title="Test: alpha", description="How often in 1000 a good release may be stopped."
    )
    beta_per_mille: int = Field(
        default=50, ge=1, le=499, title="Test: beta", description="How often in 1000 a bad release may be let through."
    )

    @model_validator(mode="after")
    def _apart(self) -> Self:
        if self.acceptable_per_mille >= self.unacceptable_per_mille:
            raise ValueError(
                f"the acceptable rate, {self.acceptable_per_mille} in 1000, must be below the unacceptable one, "
                f"{self.unacceptable_per_mille} in 1000"
            )
        return self

    def verdict(self, succeeded: int, failed: int) -> Verdict:
        """Call a release good, bad, or undecided as yet, after so many Mainframes that run it and that failed."""
        failure, success = self._weights()
        ratio = failed * failure + succeeded * success
        if ratio >= math.log((1000 - self.beta_per_mille) / self.alpha_per_mille):
            return "bad"
        return "good" if ratio <= self._good() else "undecided"

    def sizes(self) -> tuple[int, int]:
        """Return how many Mainframes the first wave has, enough for "good" if none fails, and how many each one after
        it: so many more successes make up for one failure."""
        failure, success = self._weights()
        return self.missing(0, 0), math.ceil(failure / -success)

    def missing(self, succeeded: int, failed: int) -> int:
        """Return how many more successes, without a failure, would call the release good; 0 where it is."""
        failure, success = self._weights()
        return max(0, math.ceil((self._good() - failed * failure - succeeded * success) / success))

    def _good(self) -> float:
        return math.log(self.beta_per_mille / (1000 - self.alpha_per_mille))

    def _weights(self) -> tuple[float, float]:
        """Return what a failure and a success add to the log of the likelihood ratio."""
        good, bad = self.acceptable_per_mille, self.unacceptable_per_mille
        return math.log(bad / good), math.log((1000 - bad) / (1000 - good))
