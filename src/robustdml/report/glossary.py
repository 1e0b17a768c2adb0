"""What the words of a report mean, in one sentence each."""

ATTACKS = {
    "CA+": "Changes a candidate image so that it rises in the ranking of a query it has nothing to do with.",
    "CA-": "Changes a candidate image so that it sinks in the ranking of a query it is close to.",
    "QA+": "Changes the query so that a randomly chosen gallery item rises in its ranking.",
    "QA-": "Changes the query so that one of its nearest gallery items sinks in its ranking.",
    "TMA": "Changes the query so that its embedding imitates that of another image.",
    "ES": "Changes the query so that its embedding moves as far as possible from where it was.",
    "LTM": "Changes the query so that items of its own class move away and a far item of another class comes close.",
    "GTM": "Changes the query so that its nearest neighbour belongs to a wrong class.",
    "GTM-corrected": "GTM aimed at the nearest item of another class, which the published version often misses.",
    "GTT": "Changes the query so that its former best match leaves the top four.",
    "SPQA+": "As QA+, while the query's closest neighbours stay on top so that nobody notices.",
    "SPQA-": "As QA−, while the query's closest neighbours stay on top so that nobody notices.",
    "FOA": "Changes the query so that some of its near neighbours come in an order of the attacker's choice.",
    "SPFOA": "As FOA, while the query's closest neighbours stay on top so that nobody notices.",
}
COMPONENTS = {
    "CA+": "twice the rank (in percent) at which the candidate ends; 100 is the random rank it started from",
    "CA-": "100 minus the rank (in percent) at which the candidate ends",
    "QA+": "twice the rank (in percent) at which the chosen item ends; 100 is the random rank it started from",
    "QA-": "100 minus the rank (in percent) at which the near item ends",
    "TMA": "one minus the cosine similarity to the imitated image; 0 is a perfect imitation",
    "ES:D": "how little the embedding moved; 100 is not at all, which a collapsed model also reaches",
    "ES:R": "recall@1 that survives the shift; cannot exceed clean recall@1",
    "LTM": "recall@1 that survives; cannot exceed clean recall@1",
    "GTM": "recall@1 that survives; cannot exceed clean recall@1",
    "GTT": "share of queries whose former best match stays in the top four",
}
CLEAN = {
    "accuracy": "Accuracy",
    "recall@1": "Recall@1",
    "recall@2": "Recall@2",
    "map": "mAP",
    "map_at_r": "mAP@R",
    "map_at_10": "mAP@10",
    "r_precision": "R-precision",
    "nmi": "NMI",
}
SCORES = {
    "prank": "mean rank",
    "preserved_prank": "rank of kept neighbours",
    "cosine": "cosine similarity",
    "shift": "embedding shift",
    "recall@1": "recall@1",
    "retain@4": "kept in top 4",
    "swapped": "pairs swapped",
    "tau": "agreement with the wanted order",
    "seen_prank": "mean rank, images the perturbation was made on",
    "unseen_prank": "mean rank, other images",
    "reached": "classified as wanted",
}
CHECKS = {
    "eval_mode": "Every part of the model must be in evaluation mode while it is measured.",
    "weights_kept": "Measuring a model must not change its weights or running statistics.",
    "nondeterministic": "The same image must give the same embedding twice; a random model needs an averaging attack.",
    "batch_independent": "An image's embedding must not depend on which other images are embedded with it.",
    "collapse": "Images embedded in nearly the same place, or ranked by chance, look robust because nothing can move.",
    "saturation": "Distances stick to their smallest or largest value, which hides gradients and creates ties.",
    "eps_zero": "With a budget of zero, the attack must give back exactly the clean scores.",
    "budget": "No attacked image may differ from its original by more than the stated budget.",
    "finite_embeddings": "Every attacked image must still get an embedding made of numbers.",
    "zero_gradient": "Where the gradient is zero or not a number at the start, a gradient attack is blind there.",
    "rescore": "Scoring the attacked images again, in another order, must give the same numbers.",
}
"""Self-checks and flags of the library's audits, by name."""


def meaning(name: str) -> str:
    """What a self-check or flag is about; empty for an unknown name, whose own message then has to do."""
    return CHECKS.get(name.lower().replace("-", "_").replace(" ", "_"), "")


def attack_meaning(name: str) -> str:
    """What an attack does; attack strings such as `CA:pm=+:W=1` are understood by their first parts."""
    if name in ATTACKS:
        return ATTACKS[name]
    name = name.split(" ", maxsplit=1)[0]  # `SPQA+ M=10 eps=8` of the profiles that vary number and budget
    if name in ATTACKS:
        return ATTACKS[name]
    first, *rest = name.split(":")
    sign = next((part[-1] for part in rest if part in ("pm=+", "pm=-")), "")
    return ATTACKS.get(first + sign, "")
