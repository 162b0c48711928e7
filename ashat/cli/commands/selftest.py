"""`deploy verify --self-test`: whether each check catches what it claims to, tried on this machine."""

from __future__ import annotations

from ashat.cli.terminal import output
from ashat.errors import SelfTestError
from ashat.ledger.opening import open_ledger


def self_test(*, as_json: bool = False) -> None:
    """Run every check against its seeded faults, show each, and record which checks can be trusted.

    Raises:
        SelfTestError: a check missed a fault, or failed the good release: it cannot pass a release until it is mended.
    """
    from tasks.selftest.run import Trial, self_test
    from tasks.verify.proofs import SELF_TEST, proofs_document

    def show(trial: Trial) -> None:
        if not as_json:
            output.say(f"  {'✅' if trial.caught else '❌'} {trial.check}: {trial.name}: {trial.result.seen}")

    if not as_json:
        output.say("🧪 Self-test of the checks: each on the good sample, and on bad releases made on purpose")
    proofs = self_test(show)
    document = proofs_document(proofs)
    with open_ledger() as ledger:
        ledger.put_newest(SELF_TEST, document)
    if as_json:
        output.show_json(document)
    missed = [f"{name} ({', '.join(proof.missed)})" for name, proof in proofs.items() if proof.missed]
    if missed:
        raise SelfTestError(
            f"Untrusted until mended: {'; '.join(missed)}. Such a check cannot pass a release: it fails every one."
        )
    if not as_json:
        seeded = sum(proof.seeded for proof in proofs.values())
        output.say(f"✅ {seeded} of {seeded} seeded faults caught, by {len(proofs)} checks")
