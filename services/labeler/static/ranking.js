// Rankings in words. Clips are numbered from 0 here, by the place at which they are shown.

// Tiers in words: "2, then 1 = 3".
export function inOrder(tiers) {
  return tiers.map((tier) => tier.map((clip) => clip + 1).join(" = ")).join(", then ");
}

export function tiersOf(ranks) {
  const tiers = [];
  for (const [clip, rank] of ranks.entries()) (tiers[rank] ??= []).push(clip);
  return tiers.filter(Boolean);
}
