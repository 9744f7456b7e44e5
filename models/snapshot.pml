/*
 * A snapshot of a replicated volume. See README.md.
 *
 * As in data.pml targets serve one after the other, and the record is one place that a proposal may or may not have
 * reached when a target dies. Heads are levelled and resynchronised as a whole: data.pml shows how. One snapshot:
 *
 *   hold new writes; let those in flight end; each member flushes, freezes its head and opens a new one; go on; the record
 *   that names the snapshot comes into force; only then the snapshot exists. A target that finds a record without it deletes
 *   what members have frozen.
 *
 *   REPLICAS   2 or 3
 *   WRITES     writes; write v goes to extent v % EXTENTS, one in flight for each extent
 *   TERMS      targets, one after the other
 *   CHANGES    faults and returns
 *   CUTS       power cuts
 */
#ifndef REPLICAS
#define REPLICAS 2
#endif
#ifndef WRITES
#define WRITES 3
#endif
#ifndef TERMS
#define TERMS 2
#endif
#ifndef CHANGES
#define CHANGES 2
#endif
#ifndef CUTS
#define CUTS 0
#endif
#define EXTENTS 2

#define MUTATIONS(X) \
  X(no_hold) X(no_drain) X(resume_early) X(not_in_record) X(record_first) X(proposed_left_out) X(returning_takes_it) \
  X(return_head_only) X(return_head_first) X(return_writes_below) X(no_flush) X(half_copied_kept)
#include "mutation.inc.pml"

#define SAY1(text, a) printf(text, a)
#define SAY2(text, a, b) printf(text, a, b)
#define SAY3(text, a, b, c) printf(text, a, b, c)

#define ALL ((1 << REPLICAS) - 1)
#define BIT(n) (1 << (n))
#define AT(r, e) ((r) * EXTENTS + (e))

/* ---- Replicas. */
byte head[REPLICAS * EXTENTS];    /* content of the volume */
byte stored[REPLICAS * EXTENTS];  /* what a power cut leaves of it */
byte frozen[REPLICAS * EXTENTS];  /* content of the snapshot */
byte has = 0;                     /* replicas that have frozen it */
byte flushed = 0;                 /* those whose snapshot is on the medium */
byte cold = 0;
byte sent[REPLICAS * EXTENTS];

/* ---- The record. Bit 2 * s + n: a take-over may find the members s, with the snapshot if n is 1. */
short candidates;
#define RECORD(set, snapshot) (1 << (2 * (set) + (snapshot)))

/* ---- The target. */
#define PREPARING 1
#define SERVING 2
byte term = 1;
byte stage = SERVING;
byte session = ALL;
byte answers = 0;
byte members = ALL;
byte needed = ALL;
byte proposal = 0;
bit exists = 0;                   /* the snapshot is in the record in force */
bit proposed_exists = 0;          /* and in the one proposed */
byte returning = 0;
#define NONE 0
#define HOLDING 1                 /* no new writes; waits for those in flight, then members freeze */
#define FROZEN 2                  /* on all members; writes go on */
byte snapshot = NONE;
byte writing[EXTENTS];
byte written[EXTENTS];

/* ---- The observer. */
byte next_value = 1;
byte replaced[EXTENTS];
byte forbidden[EXTENTS];          /* values that the snapshot may not hold: replaced before it was asked for, or newer */
byte seen[EXTENTS];               /* 1 + what a read of the snapshot has returned */
bit asked = 0;
bit acknowledged = 0;
byte changes = 0;
byte cuts = 0;

#define STARTED ((1 << next_value) - 1)
#define QUIET (!writing[0] && !writing[1])
#define PENDING(r) (sent[AT(r, 0)] || sent[AT(r, 1)])
#define ALL_FROZEN ((needed & ~has) == 0)
#define SOURCE(set) (((set) & 1) -> 0 : (((set) & 2) -> 1 : 2))

inline copy_head(from, to) {
  head[AT(to, 0)] = head[AT(from, 0)]; head[AT(to, 1)] = head[AT(from, 1)]
}

inline copy_frozen(from, to) {
  frozen[AT(to, 0)] = frozen[AT(from, 0)]; frozen[AT(to, 1)] = frozen[AT(from, 1)]
}

inline flush(r) {
  stored[AT(r, 0)] = head[AT(r, 0)]; stored[AT(r, 1)] = head[AT(r, 1)]
}

inline freeze(r) {
  frozen[AT(r, 0)] = head[AT(r, 0)]; frozen[AT(r, 1)] = head[AT(r, 1)];
  has = has | BIT(r);
  if
  :: DROPPED(no_flush) -> flushed = flushed & ~BIT(r)
  :: else -> flushed = flushed | BIT(r); flush(r)
  fi
}

inline melt(r) {
  has = has & ~BIT(r); flushed = flushed & ~BIT(r); frozen[AT(r, 0)] = 0; frozen[AT(r, 1)] = 0
}

inline melt_all() {
  melt(0); melt(1);
#if REPLICAS == 3
  melt(2);
#endif
  skip
}

inline land(r, e) {
  SAY3("write %d lands on %d, extent %d\n", sent[AT(r, e)], r, e);
  head[AT(r, e)] = sent[AT(r, e)];
  if :: writing[e] == sent[AT(r, e)] -> written[e] = written[e] | BIT(r) :: else fi;
  sent[AT(r, e)] = 0
}

/* A mutation: the content of the snapshot is copied into the layer that also takes the writes. */
inline copy_below(r) {
  head[AT(r, 0)] = frozen[AT(SOURCE(members & session), 0)]; head[AT(r, 1)] = frozen[AT(SOURCE(members & session), 1)]
}

/* The layers that it lacks, oldest first, then the head. */
inline copy_layers(r) {
  if
  :: exists && !(has & BIT(r)) && !DROPPED(return_head_only) && !DROPPED(return_writes_below) ->
     if
     :: DROPPED(return_head_first) -> copy_head(SOURCE(members & session), r); freeze(r)
     :: else -> copy_frozen(SOURCE(members & session), r); has = has | BIT(r)
     fi
  :: else
  fi;
  copy_head(SOURCE(members & session), r);
  if
  :: exists && !(has & BIT(r)) && DROPPED(return_writes_below) -> copy_below(r)
  :: else
  fi
}

inline in_force_now(set, with) {
  members = set; needed = set; exists = with; candidates = RECORD(set, with); proposal = 0; proposed_exists = 0
}

proctype Replica(byte r) {
  do
  :: d_step { stage == PREPARING && !(answers & BIT(r)) ->
       SAY2("replica %d answers T%d\n", r, term);
       sent[AT(r, 0)] = 0; sent[AT(r, 1)] = 0; answers = answers | BIT(r); session = session | BIT(r) }
  :: d_step { sent[AT(r, 0)] -> land(r, 0) }
  :: d_step { sent[AT(r, 1)] -> land(r, 1) }
  :: d_step {
       stage == SERVING && snapshot == HOLDING && ((needed & BIT(r) & session) || (DROPPED(returning_takes_it) && returning == BIT(r))) &&
       !(has & BIT(r)) && (QUIET || DROPPED(no_drain) || DROPPED(no_hold)) ->
       SAY3("replica %d freezes %d %d\n", r, head[AT(r, 0)], head[AT(r, 1)]);
       freeze(r) }
  :: d_step {
       stage == SERVING && (members & BIT(r)) && members != BIT(r) && changes < CHANGES && proposal != (members & ~BIT(r)) &&
       snapshot == NONE ->
       SAY1("fault of %d is proposed\n", r);
       changes++; proposal = members & ~BIT(r); needed = needed | proposal; proposed_exists = exists;
       candidates = candidates | RECORD(proposal, exists) }
  /* A member that fails while the snapshot is being taken ends the attempt. */
  :: d_step {
       stage == SERVING && snapshot != NONE && !exists && !(session & needed & BIT(r)) && (needed & BIT(r)) && proposal == 0 ->
       SAY1("no snapshot: %d has failed\n", r);
       snapshot = NONE; melt_all() }
  /* A return. It opens a head above what it has, so what it is sent does not mix with what it is yet to be copied. */
  :: d_step {
       stage == SERVING && !(needed & BIT(r)) && !returning && changes < CHANGES && QUIET && (members & session) &&
       (snapshot == NONE || exists || DROPPED(returning_takes_it)) ->
       SAY1("return of %d begins\n", r);
       changes++; returning = BIT(r); sent[AT(r, 0)] = 0; sent[AT(r, 1)] = 0; session = session | BIT(r);
       if
       :: !exists && (has & BIT(r)) -> melt(r)
       :: else
       fi;
       copy_layers(r) }
  :: d_step {
       stage == SERVING && returning == BIT(r) && (session & BIT(r)) && !PENDING(r) &&
       (snapshot == NONE || exists || DROPPED(returning_takes_it)) ->
       SAY1("return of %d is proposed\n", r);
       if :: exists && !(has & BIT(r)) && DROPPED(return_writes_below) -> freeze(r) :: else fi;
       flush(r); flushed = flushed | (has & BIT(r)); cold = cold & ~BIT(r);
       returning = 0; proposal = members | BIT(r); needed = needed | proposal; proposed_exists = exists;
       candidates = candidates | RECORD(proposal, exists) }
#if CUTS > 0
  :: d_step {
       cuts < CUTS ->
       SAY1("replica %d loses power\n", r);
       cuts++;
       if
       :: head[AT(r, 0)] != stored[AT(r, 0)] || head[AT(r, 1)] != stored[AT(r, 1)] -> cold = cold | BIT(r)
       :: else
       fi;
       if
       :: (has & ~flushed & BIT(r)) && (DROPPED(no_flush) || DROPPED(half_copied_kept)) ->
          frozen[AT(r, 0)] = stored[AT(r, 0)]; frozen[AT(r, 1)] = stored[AT(r, 1)]
       :: (has & ~flushed & BIT(r)) && !DROPPED(no_flush) && !DROPPED(half_copied_kept) -> melt(r)
       :: else
       fi;
       head[AT(r, 0)] = stored[AT(r, 0)]; head[AT(r, 1)] = stored[AT(r, 1)];
       session = session & ~BIT(r); sent[AT(r, 0)] = 0; sent[AT(r, 1)] = 0;
       if :: returning == BIT(r) -> returning = 0 :: else fi }
#endif
  /* Reads. The snapshot exists when the record in force says so. */
  :: d_step {
       stage == SERVING && exists && (members & session & BIT(r)) ->
       SAY3("the snapshot is read from %d: %d %d\n", r, frozen[AT(r, 0)], frozen[AT(r, 1)]);
       assert(has & BIT(r));
       assert(!((forbidden[0] >> frozen[AT(r, 0)]) & 1) && !((forbidden[1] >> frozen[AT(r, 1)]) & 1));
       assert((!seen[0] || seen[0] == 1 + frozen[AT(r, 0)]) && (!seen[1] || seen[1] == 1 + frozen[AT(r, 1)]));
       seen[0] = 1 + frozen[AT(r, 0)]; seen[1] = 1 + frozen[AT(r, 1)] }
  od
}

inline send(r, e) {
  if :: (needed | returning) & session & BIT(r) -> sent[AT(r, e)] = writing[e] :: else fi
}

proctype Channel(byte e) {
  do
  :: d_step {
       stage == SERVING && !writing[e] && next_value <= WRITES && next_value % EXTENTS == e &&
       (snapshot != HOLDING || DROPPED(no_hold) || (DROPPED(resume_early) && (has & needed))) &&
       (!returning || !sent[AT(SOURCE(returning), e)]) ->
       SAY1("write %d begins\n", next_value);
       writing[e] = next_value; written[e] = 0;
       if :: acknowledged -> forbidden[e] = forbidden[e] | BIT(next_value) :: else fi;
       next_value++;
       send(0, e); send(1, e);
#if REPLICAS == 3
       send(2, e);
#endif
       skip }
  :: d_step {
       stage == SERVING && writing[e] && (needed & ~written[e]) == 0 ->
       SAY1("write %d is acknowledged\n", writing[e]);
       replaced[e] = STARTED & ~BIT(writing[e]); writing[e] = 0; written[e] = 0 }
  od
}

inline level_from(best, each) {
  if
  :: (set & answers & BIT(each)) && each != best -> copy_head(best, each); cold = cold & ~BIT(each)
  :: else
  fi
}

/* Replica r as the source of a take-over, which found the members `set`, with the snapshot or without. */
proctype Decision(byte r; byte set; byte with) {
  do
  :: d_step {
       stage == PREPARING && (answers & set & BIT(r)) && (candidates & RECORD(set, with)) && !(cold & BIT(r)) ->
       SAY3("T%d takes over from %d, with the snapshot: %d\n", term, r, with);
       level_from(r, 0); level_from(r, 1);
#if REPLICAS == 3
       level_from(r, 2);
#endif
       in_force_now(set & answers & session, with);
       if
       :: !with && !DROPPED(not_in_record) -> melt_all(); snapshot = NONE
       :: DROPPED(not_in_record) && has -> exists = 1; snapshot = FROZEN
       :: else -> snapshot = (with -> FROZEN : NONE)
       fi;
       answers = 0; stage = SERVING }
  od
}

proctype Target() {
  do
  :: d_step {
       stage == SERVING && proposal && !(snapshot == HOLDING) ->
       SAY2("in force: members %x, with the snapshot: %d\n", proposal, proposed_exists);
       in_force_now(proposal, proposed_exists) }
  /* The host asks. A return under way ends, and begins again afterwards: what is not level freezes nothing. */
  :: d_step {
       stage == SERVING && !asked && snapshot == NONE && !exists && (!proposal || DROPPED(proposed_left_out)) ->
       SAY1("a snapshot is asked for, T%d\n", term);
       asked = 1; snapshot = HOLDING;
       if :: DROPPED(proposed_left_out) && proposal -> needed = members :: else fi;
       if
       :: returning && !DROPPED(returning_takes_it) -> session = session & ~returning; returning = 0
       :: else
       fi;
       forbidden[0] = replaced[0]; forbidden[1] = replaced[1];
       if
       :: DROPPED(record_first) -> proposal = members; proposed_exists = 1; candidates = candidates | RECORD(members, 1)
       :: else
       fi }
  :: d_step {
       stage == SERVING && snapshot == HOLDING && ALL_FROZEN ->
       SAY1("all have frozen: %x\n", has);
       snapshot = FROZEN }
  :: d_step {
       stage == SERVING && snapshot == FROZEN && !exists && proposal == 0 ->
       proposal = members; proposed_exists = 1; candidates = candidates | RECORD(members, 1) }
  :: d_step {
       stage == SERVING && exists && asked && !acknowledged ->
       SAY1("the snapshot is acknowledged by T%d\n", term);
       acknowledged = 1;
       forbidden[0] = forbidden[0] | (255 & ~STARTED); forbidden[1] = forbidden[1] | (255 & ~STARTED) }
  :: d_step {
       term < TERMS ->
       SAY1("T%d dies\n", term);
       term++; stage = PREPARING; answers = 0; session = 0; proposal = 0; proposed_exists = 0; members = 0; needed = 0;
       exists = 0; returning = 0; snapshot = NONE;
       writing[0] = 0; writing[1] = 0; written[0] = 0; written[1] = 0 }
  od
}

init {
  byte r; byte set;
  atomic {
    READ_MUTATION;
    candidates = RECORD(ALL, 0);
    run Target(); run Channel(0); run Channel(1);
    for (r : 0 .. REPLICAS - 1) {
      run Replica(r);
      for (set : 1 .. ALL) {
        if :: set & BIT(r) -> run Decision(r, set, 0); run Decision(r, set, 1) :: else fi
      }
    }
    r = 0; set = 0
  }
}
