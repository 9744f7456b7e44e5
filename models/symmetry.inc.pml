/*
 * Included by replication.pml with -DSYMMETRY. Replicas begin alike and no step tells them apart, so after each step they
 * are put into an order that depends on what they hold, not on their names: up to six states become one. The order comes
 * from a hash of all that concerns a replica. Replicas with equal hashes stay as they are, which costs states, never
 * truth: whatever the order, the state that is kept is the one reached, with other names.
 */
c_decl {
  enum { kReplicas = REPLICAS, kTargets = TERMS + 1, kVoterMasks = 2, kTargetMasks = 13 };
  typedef unsigned char Byte;
  typedef unsigned long long Hash;

  struct Layout {
    Byte* by_voter[4];               /* numbers, one a voter */
    Byte* voter_masks[kVoterMasks];  /* sets of replicas, one a voter */
    Byte* value;                     /* one a replica */
    Byte* in_flight;                 /* one a target and replica */
    Byte* target_masks[kTargetMasks];
  };

  static Hash mix(Hash hash, Hash more) {
    hash = (hash ^ more) * 0x9E3779B97F4A7C15ULL;
    return hash ^ (hash >> 29);
  }

  /* All about one replica that does not depend on the names of the others. */
  static Hash own_hash(const struct Layout* layout, int replica) {
    Hash numbers = layout->value[replica];
    Hash bits = 0;
    for (int i = 0; i < 4; i++) numbers = numbers << 8 | layout->by_voter[i][replica];
    for (int i = 0; i < kVoterMasks; i++) {
      const Byte own = layout->voter_masks[i][replica];
      bits = bits << 1 | ((layout->voter_masks[i][kReplicas] >> replica) & 1);
      bits = bits << 3 | ((own >> replica) & 1) << 2 | (unsigned)__builtin_popcount(own);
    }
    Hash hash = mix(numbers, bits);
    for (int target = 1; target < kTargets; target++) {
      bits = layout->in_flight[target * kReplicas + replica];
      for (int i = 0; i < kTargetMasks; i++) bits = bits << 1 | ((layout->target_masks[i][target] >> replica) & 1);
      hash = mix(hash, bits);
    }
    return hash;
  }

  /* Which others its record names, and whose records name it. */
  static Hash related_hash(const struct Layout* layout, const Hash* own, int replica) {
    Hash hash = own[replica];
    for (int i = 0; i < kVoterMasks; i++) {
      Hash names = 0;
      Hash named = 0;
      for (int other = 0; other < kReplicas; other++) {
        if ((layout->voter_masks[i][replica] >> other) & 1) names += mix(1, own[other]);
        if ((layout->voter_masks[i][other] >> replica) & 1) named += mix(2, own[other]);
      }
      hash = mix(mix(hash, names), named);
    }
    return hash;
  }

  static Byte permuted_mask(Byte mask, const int* from) {
    Byte result = (Byte)(mask & ~((1 << kReplicas) - 1));
    for (int to = 0; to < kReplicas; to++) result = (Byte)(result | ((mask >> from[to]) & 1) << to);
    return result;
  }

  static void permute(Byte* array, const int* from) {
    Byte old[kReplicas];
    memcpy(old, array, kReplicas);
    for (int to = 0; to < kReplicas; to++) array[to] = old[from[to]];
  }

  static void put_in_order(const struct Layout* layout) {
    Hash own[kReplicas];
    Hash hash[kReplicas];
    int from[kReplicas];
    int changed = 0;
    for (int replica = 0; replica < kReplicas; replica++) own[replica] = own_hash(layout, replica);
    for (int replica = 0; replica < kReplicas; replica++) {
      hash[replica] = related_hash(layout, own, replica);
      int at = replica;
      for (; at > 0 && hash[from[at - 1]] > hash[replica]; at--) from[at] = from[at - 1];
      from[at] = replica;
      if (at != replica) changed = 1;
    }
    if (!changed) return;
    for (int i = 0; i < 4; i++) permute(layout->by_voter[i], from);
    for (int i = 0; i < kVoterMasks; i++) {
      permute(layout->voter_masks[i], from);
      for (int voter = 0; voter <= kReplicas; voter++) {
        layout->voter_masks[i][voter] = permuted_mask(layout->voter_masks[i][voter], from);
      }
    }
    permute(layout->value, from);
    for (int target = 1; target < kTargets; target++) {
      permute(layout->in_flight + target * kReplicas, from);
      for (int i = 0; i < kTargetMasks; i++) {
        layout->target_masks[i][target] = permuted_mask(layout->target_masks[i][target], from);
      }
    }
  }
}

#define CANONICAL c_code { \
  const struct Layout layout = { \
    { now.promised, now.answered, now.record_term, now.record_number }, { now.record_members, now.record_prior }, \
    now.value, now.in_flight, \
    { now.answers, now.newest_members, now.newest_prior, now.reached, now.level, now.source, now.in_force, now.needed, \
      now.proposal, now.proposal_prior, now.proposal_votes, now.written, now.session } }; \
  put_in_order(&layout); }
